/*
 * request.c
 *		How a request is written down: URLs, headers, query strings and forms.
 */
#include "gateway/request.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "gateway/amount.h"
#include "gateway/dialect.h"
#include "gateway/text.h"

/*
 * libcurl builds request line and headers in at most 1 MiB; gateways stop far
 * below.  A longer query is refused here, where the reason is known.
 */
#define MAX_QUERY ((size_t) 900 * 1024)

#define MAX_IDEMPOTENCY_KEY 200

#define ROUTE_HEADER "x-higress-llm-model"

/* Sets why a configuration cannot be used; always false. */
__attribute__((format(printf, 3, 4))) static bool
refuse(char *error, size_t error_size, const char *format, ...)
{
	va_list args;

	va_start(args, format);
	vsnprintf(error, error_size, format, args);
	va_end(args);
	return false;
}

/*
 * True if name can be the name of a header that carries a credential:
 * Authorization or one of those that are for any use.  Others frame a request,
 * or unlock services that are none of ours (Metadata-Flavor).
 */
static bool
is_key_header(const char *name)
{
	static const char characters[] = "abcdefghijklmnopqrstuvwxyz"
									 "ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-";

	if (strcasecmp(name, "Authorization") == 0)
		return true;
	return strncasecmp(name, "x-", 2) == 0 && name[2] != '\0' &&
		   name[strspn(name, characters)] == '\0' && strcasecmp(name, ROUTE_HEADER) != 0;
}

/* True if text can be the value of a header: it can be neither empty nor cut or folded. */
static bool
is_header_value(const char *text)
{
	size_t length = strlen(text);

	return length > 0 && text_is_printable(text) && text[0] != ' ' && text[length - 1] != ' ';
}

/* Appends several texts to a buffer.  False: out of memory. */
#define APPEND(buffer, ...) append_all((buffer), (const char *const[]){__VA_ARGS__, NULL})

static bool
append_all(Buffer *buffer, const char *const texts[])
{
	for (; *texts; texts++)
		if (!buffer_append_text(buffer, *texts))
			return false;
	return true;
}

/* Adds "name: prefix value", or without the blank "name:" to suppress one of libcurl's. */
static bool
add_header(Endpoint *endpoint, const char *name, const char *prefix, const char *value)
{
	Buffer             line = {0};
	struct curl_slist *headers = NULL;

	if (APPEND(&line, name, value ? ": " : ":", prefix, value ? value : ""))
		headers = curl_slist_append(endpoint->headers, line.data);
	buffer_free(&line);
	if (headers)
		endpoint->headers = headers;
	return headers != NULL;
}

/* Checks what can be wrong with a configuration besides the base URL. */
static bool
check_config(const GatewayConfig *config, char *error, size_t error_size)
{
	if (config->admin_path &&
		(config->admin_path[0] != '/' || !text_is_visible(config->admin_path) ||
		 strpbrk(config->admin_path, "?#\\") != NULL))
		return refuse(error, error_size,
					  "the admin path must begin with / and must not contain blanks, ?, # or \\");
	if (config->credential && !is_header_value(config->credential))
		return refuse(error, error_size,
					  "the credential is empty, begins or ends with a blank, or contains a "
					  "character that a header cannot carry");
	if (config->key_header && !is_key_header(config->key_header))
		return refuse(error, error_size,
					  "the key header is neither Authorization nor a name that begins with x-");
	if (config->route_model && !is_header_value(config->route_model))
		return refuse(error, error_size,
					  "the route model contains a character that a header cannot carry");
	if (config->user_agent && !is_header_value(config->user_agent))
		return refuse(error, error_size,
					  "the user agent contains a character that a header cannot carry");
	if (config->connect_timeout_ms <= 0 || config->request_timeout_ms <= 0)
		return refuse(error, error_size, "the time-outs must be positive");
	if (config->max_connections <= 0)
		return refuse(error, error_size, "at least one connection is needed");
	if (config->max_reply_bytes == 0)
		return refuse(error, error_size, "the largest reply must not be empty");
	return true;
}

/* Fills the URLs. */
static bool
fill_urls(Endpoint *endpoint, const GatewayConfig *config)
{
	const DialectFacts *facts = dialect_facts(config->dialect);
	const char         *path = config->admin_path ? config->admin_path : facts->admin_path;
	Buffer              base = {0};
	Buffer             *balance = &endpoint->balance_url;
	bool                ok;

	ok = buffer_append_text(&base, config->base_url);
	while (ok && base.data[base.used - 1] == '/')
		base.data[--base.used] = '\0';
	ok = ok && APPEND(balance, base.data, facts->path_prefix, path);
	while (ok && balance->data[balance->used - 1] == '/')
		balance->data[--balance->used] = '\0';
	ok = ok && APPEND(&endpoint->refresh_url, balance->data, "/refresh") &&
		 APPEND(&endpoint->delta_url, balance->data, "/delta");
	if (ok && facts->used_path)
		ok = APPEND(&endpoint->used_url, balance->data, facts->used_path);
	buffer_free(&base);
	return ok;
}

/* Fills the headers that do not change from request to request. */
static bool
fill_headers(Endpoint *endpoint, const GatewayConfig *config)
{
	const char *name = config->key_header;
	bool        ok;

	if (!name)
		name = dialect_facts(config->dialect)->key_header;

	/* Without this libcurl may wait for "100 Continue" before a body. */
	ok = add_header(endpoint, "Expect", "", NULL);
	if (ok && config->credential)
		ok = buffer_append_text(&endpoint->secret, config->credential) &&
			 add_header(endpoint, name, strcasecmp(name, "Authorization") == 0 ? "Bearer " : "",
						config->credential);
	if (ok && config->route_model)
		ok = add_header(endpoint, ROUTE_HEADER, "", config->route_model);
	return ok;
}

/*
 * Fills an endpoint (zeros before) from a configuration.  False if it cannot
 * be used, with the reason in error; call endpoint_free in either case.
 */
bool
endpoint_init(Endpoint *endpoint, const GatewayConfig *config, char *error, size_t error_size)
{
	const char *why;

	endpoint->dialect = config->dialect;
	if (!config->base_url)
		return refuse(error, error_size, "the base URL is missing");
	if (!gateway_url_valid(config->base_url, &why, NULL, 0))
		return refuse(error, error_size, "the base URL cannot be used: %s", why);
	if (!check_config(config, error, error_size))
		return false;
	if (!fill_urls(endpoint, config) || !fill_headers(endpoint, config) ||
		!buffer_append_text(&endpoint->user_agent,
							config->user_agent ? config->user_agent : "quota_manager"))
		return refuse(error, error_size, "out of memory");
	return true;
}

/* Frees what an endpoint holds. */
void
endpoint_free(Endpoint *endpoint)
{
	buffer_free(&endpoint->balance_url);
	buffer_free(&endpoint->used_url);
	buffer_free(&endpoint->refresh_url);
	buffer_free(&endpoint->delta_url);
	buffer_free(&endpoint->user_agent);
	buffer_free(&endpoint->secret);
	curl_slist_free_all(endpoint->headers);
	endpoint->headers = NULL;
}

/* The secret that must not show in messages, or NULL. */
const char *
endpoint_secret(const Endpoint *endpoint)
{
	return endpoint->secret.used > 0 ? endpoint->secret.data : NULL;
}

/*
 * What is wrong with a request (a constant text); NULL: it can be written
 * down.
 */
const char *
request_fault(const Endpoint *endpoint, const GatewayRequest *request)
{
	char written[AMOUNT_SIZE];

	if (request->user_id[0] == '\0')
		return "the user id is empty";
	if (request->action == GATEWAY_QUERY)
	{
		if (encoded_length(request->user_id) > MAX_QUERY)
			return "the user id is too long for a query";
	}
	else if (!request->amount || !amount_write(endpoint->dialect, request->amount, written))
		return "the gateway cannot carry this amount";
	if (request->idempotency_key && (!is_header_value(request->idempotency_key) ||
									 strlen(request->idempotency_key) > MAX_IDEMPOTENCY_KEY))
		return "the idempotency key cannot be sent in a header";
	return NULL;
}

/* The URL of an exchange, without its query string. */
const char *
request_url(const Endpoint *endpoint, ExchangeKind kind)
{
	switch (kind)
	{
		case EXCHANGE_USED:
			return endpoint->used_url.data;
		case EXCHANGE_REFRESH:
			return endpoint->refresh_url.data;
		case EXCHANGE_DELTA:
			return endpoint->delta_url.data;
		case EXCHANGE_BALANCE:
			break;
	}
	return endpoint->balance_url.data;
}

/* Writes the whole URL of a query.  False: out of memory. */
bool
write_query_url(const Endpoint *endpoint, ExchangeKind kind, const char *user_id, Buffer *url)
{
	return APPEND(url, request_url(endpoint, kind), "?",
				  dialect_facts(endpoint->dialect)->user_parameter, "=") &&
		   buffer_append_encoded(url, user_id);
}

/*
 * Writes the form of a refresh or delta that has no fault.  False: out of
 * memory.
 */
bool
write_form(const Endpoint *endpoint, const GatewayRequest *request, Buffer *form)
{
	char written[AMOUNT_SIZE];

	return amount_write(endpoint->dialect, request->amount, written) &&
		   APPEND(form, dialect_facts(endpoint->dialect)->user_parameter, "=") &&
		   buffer_append_encoded(form, request->user_id) &&
		   APPEND(form, request->action == GATEWAY_DELTA ? "&value=" : "&quota=", written);
}

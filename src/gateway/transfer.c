/*
 * transfer.c
 *		One request at a time on one easy handle of libcurl, and its reply.
 *
 * The callbacks run inside libcurl: they access nothing but their transfer.
 */
#include "gateway/transfer.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <time.h>

#include "gateway/address.h"
#include "gateway/amount.h"
#include "gateway/text.h"

/* Buffers larger than this are given back after the request that needed them. */
#define KEPT_BYTES ((size_t) 64 * 1024)

#ifndef SOCK_CLOEXEC
#define SOCK_CLOEXEC 0
#endif

/* libcurl's smallest send and receive buffers; it allocates them per request. */
#define CURL_BUFFER_BYTES 16384L

/*
 * Connections idle for longer are not used again.  Closing at this end first
 * avoids the race in which a request is sent into a connection that the
 * gateway, or a proxy before it, is just closing: its outcome would be in
 * doubt.  Common servers wait for 5 seconds or more.
 */
#define MAX_IDLE_SECONDS 4L

#define MAX_RETRY_AFTER_SECONDS 86400.0

/* A clock that only moves forward, in milliseconds. */
int64_t
transfer_now_ms(void)
{
	struct timespec now;

	clock_gettime(CLOCK_MONOTONIC, &now);
	return (int64_t) now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

/*
 * Gives libcurl the form.  That nothing was given proves that no parameter of
 * the request has left this machine.
 */
static size_t
read_form(char *out, size_t size, size_t count, void *data)
{
	Transfer *transfer = data;
	size_t    space = size * count;
	size_t    left = transfer->request.form.used - transfer->request.form_given;

	if (left > space)
		left = space;
	memcpy(out, transfer->request.form.data + transfer->request.form_given, left);
	transfer->request.form_given += left;
	return left;
}

/*
 * Refuses to give any of the form a second time.  libcurl wants to when a
 * connection it used again was closed without a reply; the gateway may have
 * applied the request by then.  While nothing was given the beginning is where
 * the form stands anyway.  (libcurl 8.14 asks for that at the start of a request
 * if the one before ended by such a refusal.)
 */
static int
refuse_rewind(void *data, curl_off_t offset, int origin)
{
	const Transfer *transfer = data;

	if (transfer->request.form_given == 0 && offset == 0 && origin == SEEK_SET)
		return CURL_SEEKFUNC_OK;
	return CURL_SEEKFUNC_FAIL;
}

/*
 * Makes the socket of a new connection, if a gateway may be at its address.
 * libcurl goes on to the next address of the name otherwise.
 */
static curl_socket_t
open_socket(void *data, curlsocktype purpose, struct curl_sockaddr *address)
{
	Transfer   *transfer = data;
	const char *fault = address_fault(&address->addr);
	char        text[ADDRESS_SIZE];

	if (fault)
	{
		address_write(&address->addr, text);
		if (!transfer->limits->address_allowed || !transfer->limits->address_allowed(text))
		{
			if (transfer->connection.socket_made)
				return CURL_SOCKET_BAD;
			snprintf(transfer->connection.refused_address,
					 sizeof(transfer->connection.refused_address),
					 "%s is %s, which is not allowed for a gateway", text, fault);
			return CURL_SOCKET_BAD;
		}
	}
	transfer->connection.socket_made = true;
	transfer->connection.refused_address[0] = '\0';
	return socket(address->family, address->socktype | SOCK_CLOEXEC, address->protocol);
}

/* Counts what a reply has cost so far; false beyond the limit. */
static bool
count_bytes(Transfer *transfer, size_t length)
{
	if (length > transfer->limits->max_reply_bytes - transfer->received.bytes)
	{
		transfer->received.too_large = true;
		return false;
	}
	transfer->received.bytes += length;
	return true;
}

/* Reads the value of a Retry-After header: seconds, or a date. */
static double
read_retry_after(const char *value, size_t length)
{
	char   text[64];
	double seconds;

	text_line(text, sizeof(text), value, length, NULL);
	if (text[0] >= '0' && text[0] <= '9' && text[strspn(text, "0123456789")] == '\0')
		seconds = strtod(text, NULL);
	else
	{
		time_t date = curl_getdate(text, NULL);

		if (date == (time_t) -1)
			return -1;
		seconds = difftime(date, time(NULL));
	}
	if (seconds < 0)
		return 0;
	return seconds < MAX_RETRY_AFTER_SECONDS ? seconds : MAX_RETRY_AFTER_SECONDS;
}

/*
 * True if a line is "HTTP/1.1 200", as any version has it, with a blank or the
 * end of the line behind.  Versions of libcurl differ in what else they take.
 */
static bool
is_status_line(const char *line, size_t length)
{
	static const char form[] = "HTTP/0.0 000";
	const size_t      form_length = sizeof(form) - 1;
	size_t            i;
	char              end;

	if (length <= form_length)
		return false;
	end = line[form_length];
	if (end != ' ' && end != '\r' && end != '\n')
		return false;
	for (i = 0; i < form_length; i++)
		if (form[i] == '0' ? line[i] < '0' || line[i] > '9' : line[i] != form[i])
			return false;
	return true;
}

/* The value of a header if the line is one of that name, with its colon; otherwise NULL. */
static const char *
header_value(const char *line, size_t length, const char *name)
{
	size_t name_length = strlen(name);

	return length > name_length && strncasecmp(line, name, name_length) == 0 ? line + name_length
																			 : NULL;
}

/* Reads the media type of a Content-Type header: "text/html" and the like, or "". */
static void
read_content_type(const char *value, size_t length, char *out, size_t size)
{
	static const char allowed[] = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
								  "0123456789/.+-";
	size_t            used = 0;

	while (length > 0 && (*value == ' ' || *value == '\t'))
		value++, length--;
	while (used < length && used + 1 < size && strchr(allowed, value[used]) != NULL)
	{
		out[used] = value[used];
		used++;
	}
	if (used < length && strchr("; \t\r\n", value[used]) == NULL)
		used = 0;
	out[used] = '\0';
}

/* Takes one line of a reply's header, the status line and the empty line included. */
static size_t
take_header(char *line, size_t size, size_t count, void *data)
{
	Transfer   *transfer = data;
	const char *value;
	size_t      length = size * count;

	if (!count_bytes(transfer, length))
		return 0;
	if (length >= 5 && strncasecmp(line, "HTTP/", 5) == 0)
	{
		if (!is_status_line(line, length))
		{
			transfer->received.headers_whole = false;
			transfer->received.not_http = true;
			return 0;
		}
		/* an interim reply (1xx) went before */
		transfer->received.headers_whole = false;
		transfer->received.retry_after = -1;
		transfer->received.content_type[0] = '\0';
	}
	else if (length <= 2 && (line[0] == '\r' || line[0] == '\n'))
	{
		/* the second time it is the end of a chunked body */
		if (!transfer->received.headers_whole)
			transfer->received.given_before = transfer->request.form_given;
		transfer->received.headers_whole = true;
	}
	else if ((value = header_value(line, length, "Retry-After:")) != NULL)
		transfer->received.retry_after = read_retry_after(value, length - (size_t) (value - line));
	else if ((value = header_value(line, length, "Content-Type:")) != NULL)
		read_content_type(value, length - (size_t) (value - line), transfer->received.content_type,
						  sizeof(transfer->received.content_type));
	return length;
}

/* Takes a piece of a reply's body. */
static size_t
take_body(char *piece, size_t size, size_t count, void *data)
{
	Transfer *transfer = data;
	size_t    length = size * count;

	if (!count_bytes(transfer, length))
		return 0;
	if (!buffer_append(&transfer->received.body, piece, length))
	{
		transfer->received.out_of_memory = true;
		return 0;
	}
	return length;
}

/* Sets what is the same for every request. */
static bool
set_common_options(Transfer *transfer)
{
	CURL *easy = transfer->easy;
	bool  ok = true;

#define SET(option, value) (ok = ok && curl_easy_setopt(easy, option, value) == CURLE_OK)

	SET(CURLOPT_PRIVATE, transfer);
	SET(CURLOPT_ERRORBUFFER, transfer->fault);
	SET(CURLOPT_NOSIGNAL, 1L);
	SET(CURLOPT_USERAGENT, transfer->endpoint->user_agent.data);

#if LIBCURL_VERSION_NUM >= 0x075500
	SET(CURLOPT_PROTOCOLS_STR, "http,https");
#else
	SET(CURLOPT_PROTOCOLS, (long) (CURLPROTO_HTTP | CURLPROTO_HTTPS));
#endif
	SET(CURLOPT_HTTP_VERSION, (long) CURL_HTTP_VERSION_1_1);
	SET(CURLOPT_HTTP09_ALLOWED, 0L);
	SET(CURLOPT_FOLLOWLOCATION, 0L);
	SET(CURLOPT_PATH_AS_IS, 1L);
	SET(CURLOPT_PROXY, "");
	SET(CURLOPT_NETRC, (long) CURL_NETRC_IGNORED);
	SET(CURLOPT_DISALLOW_USERNAME_IN_URL, 1L);
	SET(CURLOPT_SSL_VERIFYPEER, 1L);
	SET(CURLOPT_SSL_VERIFYHOST, 2L);
	SET(CURLOPT_SSLVERSION, (long) CURL_SSLVERSION_TLSv1_2);

	SET(CURLOPT_TCP_NODELAY, 1L);
	SET(CURLOPT_TCP_KEEPALIVE, 1L);
	SET(CURLOPT_MAXAGE_CONN, MAX_IDLE_SECONDS);
	SET(CURLOPT_CONNECTTIMEOUT_MS, (long) transfer->limits->connect_timeout_ms);
	SET(CURLOPT_BUFFERSIZE, CURL_BUFFER_BYTES);
	SET(CURLOPT_UPLOAD_BUFFERSIZE, CURL_BUFFER_BYTES);
#if LIBCURL_VERSION_NUM >= 0x075700
	/* Do not wait for a name look-up that hangs; its thread ends by itself. */
	SET(CURLOPT_QUICK_EXIT, 1L);
#endif

	SET(CURLOPT_OPENSOCKETFUNCTION, open_socket);
	SET(CURLOPT_OPENSOCKETDATA, transfer);
	SET(CURLOPT_READFUNCTION, read_form);
	SET(CURLOPT_READDATA, transfer);
	SET(CURLOPT_SEEKFUNCTION, refuse_rewind);
	SET(CURLOPT_SEEKDATA, transfer);
	SET(CURLOPT_HEADERFUNCTION, take_header);
	SET(CURLOPT_HEADERDATA, transfer);
	SET(CURLOPT_WRITEFUNCTION, take_body);
	SET(CURLOPT_WRITEDATA, transfer);

#undef SET
	return ok;
}

/*
 * Makes a transfer ready for requests to an endpoint; zeros before.  False:
 * libcurl lacks a feature, or out of memory; call transfer_free in any case.
 */
bool
transfer_init(Transfer *transfer, const Endpoint *endpoint, const GatewayConfig *limits)
{
	transfer->endpoint = endpoint;
	transfer->limits = limits;
	transfer->request.key_header.data = transfer->request.key_line;
	transfer->request.key_header.next = endpoint->headers;
	transfer->easy = curl_easy_init();
	return transfer->easy != NULL && set_common_options(transfer);
}

/* Frees what a transfer holds. */
void
transfer_free(Transfer *transfer)
{
	if (transfer->easy)
		curl_easy_cleanup(transfer->easy);
	buffer_free(&transfer->request.user_id);
	buffer_free(&transfer->request.query_url);
	buffer_free(&transfer->request.form);
	buffer_free(&transfer->received.body);
}

/* Forgets the reply before. */
static void
reset_reply(Transfer *transfer)
{
	transfer->received.bytes = 0;
	buffer_reset(&transfer->received.body, KEPT_BYTES);
	transfer->received.headers_whole = false;
	transfer->received.given_before = 0;
	transfer->received.too_large = false;
	transfer->received.out_of_memory = false;
	transfer->received.not_http = false;
	transfer->received.retry_after = -1;
	transfer->received.content_type[0] = '\0';
	transfer->fault[0] = '\0';
	transfer->connection.refused_address[0] = '\0';
	transfer->connection.socket_made = false;
}

/* Sets URL, method and time-out of one exchange. */
static bool
set_exchange(Transfer *transfer, ExchangeKind kind, long timeout_ms)
{
	CURL       *easy = transfer->easy;
	const char *url = request_url(transfer->endpoint, kind);
	bool        ok;

	reset_reply(transfer);
	transfer->connection.socket = CURL_SOCKET_BAD;
	transfer->connection.push_due = true;
	if (exchange_is_query(kind))
	{
		buffer_reset(&transfer->request.query_url, KEPT_BYTES);
		ok = write_query_url(transfer->endpoint, kind, transfer->request.user_id.data,
							 &transfer->request.query_url) &&
			 curl_easy_setopt(easy, CURLOPT_HTTPGET, 1L) == CURLE_OK;
		url = transfer->request.query_url.data;
	}
	else
		ok = curl_easy_setopt(easy, CURLOPT_POST, 1L) == CURLE_OK &&
			 curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
							  (curl_off_t) transfer->request.form.used) == CURLE_OK;
	transfer->request.kind = kind;
	return ok && curl_easy_setopt(easy, CURLOPT_URL, url) == CURLE_OK &&
		   curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, timeout_ms) == CURLE_OK;
}

/*
 * Sets the easy handle up for a request that has no fault.  False: out of
 * memory, nothing is to be sent.
 */
bool
transfer_prepare(Transfer *transfer, const GatewayRequest *request)
{
	struct curl_slist *headers = transfer->endpoint->headers;
	ExchangeKind       kind = EXCHANGE_BALANCE;

	transfer->token = request->token;
	transfer->received.total[0] = '\0';
	transfer->request.form_given = 0;
	buffer_reset(&transfer->request.user_id, KEPT_BYTES);
	buffer_reset(&transfer->request.form, KEPT_BYTES);
	if (!buffer_append_text(&transfer->request.user_id, request->user_id))
		return false;
	if (request->action != GATEWAY_QUERY)
	{
		kind = request->action == GATEWAY_DELTA ? EXCHANGE_DELTA : EXCHANGE_REFRESH;
		if (!write_form(transfer->endpoint, request, &transfer->request.form))
			return false;
	}
	if (request->idempotency_key)
	{
		static const char name[] = "Idempotency-Key: ";

		memcpy(transfer->request.key_line, name, sizeof(name) - 1);
		text_line(transfer->request.key_line + sizeof(name) - 1,
				  sizeof(transfer->request.key_line) - sizeof(name) + 1, request->idempotency_key,
				  strlen(request->idempotency_key), NULL);
		headers = &transfer->request.key_header;
	}
	transfer->request.deadline_ms = transfer_now_ms() + transfer->limits->request_timeout_ms;
	return curl_easy_setopt(transfer->easy, CURLOPT_HTTPHEADER, headers) == CURLE_OK &&
		   set_exchange(transfer, kind, transfer->limits->request_timeout_ms);
}

/* True if libcurl has written all of the request, as far as is known. */
bool
transfer_is_written(const Transfer *transfer)
{
	long sent = 0;

	if (!exchange_is_query(transfer->request.kind))
		return transfer->request.form_given == transfer->request.form.used;
	return curl_easy_getinfo(transfer->easy, CURLINFO_REQUEST_SIZE, &sent) == CURLE_OK && sent > 0;
}

/*
 * Why there is no reply to a request of which something was sent.  libcurl's
 * own text is about the last thing it tried, often to connect anew and to send
 * the request again ("Failed to connect", "seek callback returned error 1"),
 * which would be taken for a proof that nothing was sent.
 */
static const char *
why_lost(const Transfer *transfer, CURLcode result)
{
	switch (result)
	{
		case CURLE_OPERATION_TIMEDOUT:
			return "timed out without a whole reply";
		case CURLE_OK:
		case CURLE_GOT_NOTHING:
		case CURLE_RECV_ERROR:
		case CURLE_SEND_ERROR:
		case CURLE_SEND_FAIL_REWIND:
		case CURLE_COULDNT_RESOLVE_HOST:
		case CURLE_COULDNT_CONNECT:
		case CURLE_SSL_CONNECT_ERROR:
		case CURLE_PEER_FAILED_VERIFICATION:
			return transfer->received.bytes > 0 ? "the connection closed before the reply was whole"
												: "the connection closed without a reply";
		default:
			return NULL;
	}
}

/* What kept an exchange from ending well, as text; NULL: nothing. */
static const char *
fault_of(const Transfer *transfer, CURLcode result, bool nothing_sent)
{
	const char *why = NULL;

	if (transfer->received.too_large)
		return "the reply is larger than allowed";
	if (transfer->received.out_of_memory)
		return "out of memory while reading the reply";
	if (transfer->received.not_http)
		return "the reply does not begin with a status line of HTTP";
	if (!nothing_sent && !transfer->received.headers_whole)
		why = why_lost(transfer, result);
	if (why != NULL || result == CURLE_OK)
		return why;
	if (result == CURLE_COULDNT_CONNECT && transfer->connection.refused_address[0] != '\0')
		return transfer->connection.refused_address;
	return transfer->fault[0] != '\0' ? transfer->fault : curl_easy_strerror(result);
}

/* Fills what was observed, for classify. */
static void
observe(Transfer *transfer, CURLcode result, Exchange *exchange)
{
	exchange->dialect = transfer->endpoint->dialect;
	exchange->kind = transfer->request.kind;
	exchange->user_id = transfer->request.user_id.data;
	exchange->secret = endpoint_secret(transfer->endpoint);
	exchange->headers_whole = transfer->received.headers_whole;
	exchange->retry_after = transfer->received.retry_after;
	exchange->content_type = transfer->received.content_type;
	exchange->body = transfer->received.body.data ? transfer->received.body.data : "";
	exchange->body_length = transfer->received.body.used;

	exchange->http_status = 0;
	curl_easy_getinfo(transfer->easy, CURLINFO_RESPONSE_CODE, &exchange->http_status);
	if (exchange_is_query(transfer->request.kind))
	{
		long sent = 0;

		curl_easy_getinfo(transfer->easy, CURLINFO_REQUEST_SIZE, &sent);
		exchange->nothing_sent = sent == 0;
		exchange->partly_sent = false;
	}
	else
	{
		exchange->nothing_sent = transfer->request.form_given == 0;
		exchange->partly_sent = transfer->received.given_before < transfer->request.form.used;
	}

	exchange->fault = fault_of(transfer, result, exchange->nothing_sent);
}

/*
 * Records that libcurl ended with this result.  True: reply is filled.  False:
 * the answer has a second half, for which the easy handle is set up.
 */
bool
transfer_ended(Transfer *transfer, CURLcode result)
{
	GatewayReply *reply = &transfer->reply;
	Exchange      exchange;
	int64_t       left;

	observe(transfer, result, &exchange);
	classify(&exchange, reply);
	if (reply->outcome != GATEWAY_COMPLETED)
		return true;

	if (transfer->request.kind == EXCHANGE_USED)
	{
		char used[sizeof(reply->balance)];

		memcpy(used, reply->balance, sizeof(used));
		memcpy(reply->total, transfer->received.total, sizeof(reply->total));
		amount_subtract(reply->total, used, reply->balance);
		return true;
	}
	if (transfer->request.kind != EXCHANGE_BALANCE || transfer->endpoint->used_url.used == 0 ||
		reply->below_zero)
		return true;

	memcpy(transfer->received.total, reply->balance, sizeof(transfer->received.total));
	left = transfer->request.deadline_ms - transfer_now_ms();
	if (set_exchange(transfer, EXCHANGE_USED, left > 0 ? (long) left : 1L))
		return false;
	transfer_fail(transfer, GATEWAY_NOT_SENT, "out of memory");
	return true;
}

/* Fills the reply of a transfer that is not to be sent (again). */
void
transfer_fail(Transfer *transfer, GatewayOutcome outcome, const char *why)
{
	memset(&transfer->reply, 0, sizeof(transfer->reply));
	transfer->reply.outcome = outcome;
	transfer->reply.retry_after = -1;
	text_line(transfer->reply.message, sizeof(transfer->reply.message), why, strlen(why), NULL);
}

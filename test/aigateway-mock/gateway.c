/*
 * gateway.c
 *		The quota interface itself: which requests belong to it, and what becomes of one.
 */
#include "gateway.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

#include <microhttpd.h>

#include "faults.h"
#include "form.h"
#include "strike.h"

static const struct options *settings;

static pthread_mutex_t key_lock = PTHREAD_MUTEX_INITIALIZER;
static char           *current_key;

/* What a request says once it is understood. */
struct parameters
{
	struct text user;
	amount      value;
};

/*
 * Remembers the options and the first key.
 */
void
gateway_configure(const struct options *options)
{
	settings = options;
	gateway_set_key(options->key);
}

/*
 * The dialect that is spoken.
 */
const struct dialect *
gateway_dialect(void)
{
	return settings->dialect;
}

/*
 * Replaces the key.
 */
void
gateway_set_key(const char *key)
{
	char *fresh = key != NULL ? need_copy(key) : NULL;
	char *stale;

	pthread_mutex_lock(&key_lock);
	stale = current_key;
	current_key = fresh;
	pthread_mutex_unlock(&key_lock);
	free(stale);
}

/*
 * Takes the suffix off the end of a path; false if it does not end so.
 */
static bool
strip_suffix(const char *path, size_t *length, const char *suffix)
{
	size_t suffix_length = strlen(suffix);

	if (*length < suffix_length ||
		memcmp(path + *length - suffix_length, suffix, suffix_length) != 0)
		return false;
	*length -= suffix_length;
	return true;
}

/*
 * The real gateways look only at the end of the path, so anything may stand before it.
 */
bool
gateway_route(const char *path, enum action *action)
{
	static const struct
	{
		const char *suffix;
		enum action action;
	} routes[] = {
		{"/delta", ACTION_DELTA},           {"", ACTION_QUERY},
		{"/refresh", ACTION_REFRESH},       {"/used", ACTION_USED_QUERY},
		{"/used/delta", ACTION_USED_DELTA}, {"/used/refresh", ACTION_USED_REFRESH},
	};
	const size_t plain_routes = 3;
	size_t count = settings->dialect->has_used ? sizeof(routes) / sizeof(routes[0]) : plain_routes;
	size_t path_length;

	/* what follows two slashes is a host to Go's url.Parse, and no part of the path */
	if (strncmp(path, "//", 2) == 0)
		path = strchr(path + 2, '/');
	if (path == NULL)
		return false;
	path_length = strlen(path);
	for (size_t i = 0; i < count; i++)
	{
		size_t length = path_length;

		if (strip_suffix(path, &length, routes[i].suffix) &&
			strip_suffix(path, &length, settings->admin_path) &&
			strip_suffix(path, &length, settings->dialect->path_prefix))
		{
			*action = routes[i].action;
			return true;
		}
	}
	return false;
}

/*
 * Called for each header: counts those of the name.
 */
struct counted_header
{
	const char *name;
	int         count;
};

static enum MHD_Result
count_header(void *context, enum MHD_ValueKind kind, const char *name, const char *value)
{
	struct counted_header *counted = context;

	(void) kind;
	(void) value;
	counted->count += strcasecmp(name, counted->name) == 0;
	return MHD_YES;
}

/*
 * The key header; several of one name are one to a proxy, joined by commas, which is no key.
 */
static const char *
key_header(struct MHD_Connection *connection)
{
	struct counted_header counted = {settings->key_header, 0};

	MHD_get_connection_values(connection, MHD_HEADER_KIND, count_header, &counted);
	if (counted.count > 1)
		return ",";
	return MHD_lookup_connection_value(connection, MHD_HEADER_KIND, settings->key_header);
}

/*
 * Whether the plugin leaves a body unread, so that the request passes it by: those that cannot be forms.
 */
static bool
is_binary(struct MHD_Connection *connection)
{
	const char *type =
		MHD_lookup_connection_value(connection, MHD_HEADER_KIND, MHD_HTTP_HEADER_CONTENT_TYPE);

	return type != NULL && (strstr(type, "octet-stream") != NULL || strstr(type, "grpc") != NULL);
}

/*
 * Whether the request may pass: the right model and the right key.
 */
static bool
admit(struct MHD_Connection *connection, struct answer *answer)
{
	const char *header;
	bool        admitted;

	if (settings->model != NULL)
	{
		header = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "x-higress-llm-model");
		if (header == NULL || strcmp(header, settings->model) != 0)
		{
			/* no route leads to the plugin: the proxy answers, without a word */
			answer_constant(answer, 404, type_text, "");
			return false;
		}
	}
	header = key_header(connection);
	pthread_mutex_lock(&key_lock);
	admitted = current_key == NULL ||
			   settings->dialect->admit(header, current_key, settings->other_key, answer);
	pthread_mutex_unlock(&key_lock);
	return admitted;
}

/*
 * Whether a figure of the dialect is a whole number.
 */
static bool
is_whole(amount value)
{
	amount unit = 1;
	int    place;

	for (place = 0; place < settings->dialect->scale; place++)
		unit *= 10;
	return amount_is_finite(value) && value % unit == 0;
}

/*
 * Reads user and, for a change, value.  Queries have them in the query string, changes in the body;
 * the other place is not looked at, and neither are method and content type.
 */
static bool
read_parameters(enum action action, const struct text *query, const struct text *body,
				struct parameters *parameters)
{
	const struct text *form = action_only_reads(action) ? query : body;
	bool               sets = action == ACTION_REFRESH || action == ACTION_USED_REFRESH;
	struct text        number = {0};
	bool               valid;

	if (!form_value(form->bytes, form->length, settings->dialect->user_parameter,
					&parameters->user) ||
		parameters->user.length == 0 ||
		memchr(parameters->user.bytes, '\0', parameters->user.length) != NULL)
		return false;
	if (action_only_reads(action))
		return true;
	valid = form_value(form->bytes, form->length, sets ? "quota" : "value", &number) &&
			settings->dialect->read_amount(number.bytes, number.length, &parameters->value);
	text_free(&number);
	return valid && (settings->dialect->answer_fraction == NULL || is_whole(parameters->value));
}

/*
 * Applies a change and answers as the gateway does when nothing goes wrong.
 */
static void
change(struct MHD_Connection *connection, enum action action, const struct parameters *parameters,
	   struct answer *answer)
{
	const struct dialect *dialect = settings->dialect;
	bool                  adds = action == ACTION_DELTA || action == ACTION_USED_DELTA;
	struct change_request request = {
		.action = action,
		.user = parameters->user.bytes,
		.user_length = parameters->user.length,
		.value = parameters->value,
		.lowest = dialect->lowest,
		.highest = dialect->highest,
		.idempotency_key =
			MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Idempotency-Key"),
	};

	/* SET takes any text that Go has written, and adds to no number any more */
	if (!adds && !amount_is_finite(parameters->value))
	{
		request.lowest = -AMOUNT_NAN;
		request.highest = AMOUNT_NAN;
	}
	if (adds && parameters->value == AMOUNT_NAN)
		dialect->answer_store_error(503, "ERR value is not a valid float", answer);
	else if (adds && parameters->value < dialect->lowest_delta)
		dialect->answer_store_error(503, dialect->delta_overflow, answer);
	else if (ledger_apply(&request) == LEDGER_OUT_OF_RANGE)
		dialect->answer_store_error(503, dialect->overflow, answer);
	else
		dialect->answer_applied(action, answer);
}

/*
 * Does what was asked for, or leaves a change undone, and answers as the gateway does when nothing goes
 * wrong.
 */
static void
perform(struct MHD_Connection *connection, enum action action, const struct parameters *parameters,
		bool apply, struct answer *answer)
{
	amount quota;
	amount used;
	amount figure;

	if (!action_only_reads(action))
	{
		if (apply)
			change(connection, action, parameters, answer);
		else
			settings->dialect->answer_applied(action, answer);
		return;
	}
	ledger_read(parameters->user.bytes, parameters->user.length, &quota, &used);
	figure = action == ACTION_USED_QUERY ? used : quota;
	/* JSON has no such numbers: the plugin fails to write its answer, and nobody gets one */
	if (!amount_is_finite(figure))
		answer->ending = END_HANG;
	else if (settings->dialect->answer_fraction != NULL && !is_whole(figure))
		settings->dialect->answer_fraction(action, answer);
	else
		settings->dialect->answer_query(action, parameters->user.bytes, parameters->user.length,
										figure, answer);
}

/*
 * Handles one request; see the header.
 */
void
gateway_handle(struct MHD_Connection *connection, enum action action, const struct text *query,
			   const struct text *body, struct answer *answer)
{
	struct parameters parameters = {0};
	struct strike     strike;

	answer->action = action;
	if (!admit(connection, answer))
		return;
	if (!action_only_reads(action) && is_binary(connection))
		answer_constant(answer, 404, type_text, "");
	else if (!read_parameters(action, query, body, &parameters))
		settings->dialect->refuse(action, parameters.user.length > 0, answer);
	else if (!faults_take(action, parameters.user.bytes, parameters.user.length, parameters.value,
						  &strike))
		perform(connection, action, &parameters, true, answer);
	else
	{
		perform(connection, action, &parameters, strike.kind->applies, answer);
		strike_answer(&strike, settings->dialect, answer);
	}
	text_free(&parameters.user);
}

/*
 * Applies a change late; see the header.
 */
void
gateway_apply(struct MHD_Connection *connection, enum action action, const struct text *query,
			  const struct text *body)
{
	struct parameters parameters = {0};
	struct answer     nobody_hears = {0};

	if (read_parameters(action, query, body, &parameters))
		perform(connection, action, &parameters, true, &nobody_hears);
	text_free(&parameters.user);
	answer_free(&nobody_hears);
}

/*
 * gateway.c
 *		The quota interface itself: which requests belong to it, and what becomes of one.
 */
#include "gateway.h"

#include <pthread.h>
#include <stdlib.h>
#include <string.h>

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
	size_t path_length = strlen(path);

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
	header = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, settings->key_header);
	pthread_mutex_lock(&key_lock);
	admitted = current_key == NULL || settings->dialect->admit(header, current_key, answer);
	pthread_mutex_unlock(&key_lock);
	return admitted;
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
	return valid;
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

	if ((adds && parameters->value < dialect->lowest_delta) ||
		ledger_apply(&request) == LEDGER_OUT_OF_RANGE)
		dialect->answer_store_error(503, "ERR increment or decrement would overflow", answer);
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

	if (!action_only_reads(action))
	{
		if (apply)
			change(connection, action, parameters, answer);
		else
			settings->dialect->answer_applied(action, answer);
		return;
	}
	ledger_read(parameters->user.bytes, parameters->user.length, &quota, &used);
	settings->dialect->answer_query(action, parameters->user.bytes, parameters->user.length,
									action == ACTION_USED_QUERY ? used : quota, answer);
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
	if (!read_parameters(action, query, body, &parameters))
		settings->dialect->refuse(action, answer);
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

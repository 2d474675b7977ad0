/*
 * test_kinds.c
 *		Every kind of fault that aigateway-mock knows, in both dialects: what a
 *		change and a query are called, and whether the change was applied.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "check.h"
#include "fault_server.h"
#include "mock_control.h"

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

/* Shorter names, for a table that can be read. */
enum
{
	DONE = GATEWAY_COMPLETED,
	LATER = GATEWAY_THROTTLED,
	BLOCKED = GATEWAY_BLOCKED,
	REFUSED = GATEWAY_REFUSED,
	DOUBT = GATEWAY_IN_DOUBT,
};

/* Which of two sessions meets the fault. */
enum
{
	PATIENT, /* waits long enough for all that comes at all */
	HASTY,   /* does not */
};

static const struct
{
	const char *fault;
	int         session;
	int         change[2]; /* outcome by dialect: higress, zgsm */
	int         applied;
	int         query[2];
} rows[] = {
	/* answered as usual, or nearly */
	{"kind=slow&delay_ms=30", PATIENT, {DONE, DONE}, 1, {DONE, DONE}},
	{"kind=slow&delay_ms=1000", HASTY, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
	{"kind=apply_wrong_type", PATIENT, {DONE, DONE}, 1, {DONE, DONE}},
	{"kind=apply_huge&size=40000", PATIENT, {DONE, DONE}, 1, {DONE, DONE}},
	{"kind=apply_drip&delay_ms=1", PATIENT, {DONE, DONE}, 1, {DONE, DONE}},
	{"kind=apply_extra", PATIENT, {DONE, DONE}, 1, {DONE, DONE}},

	/* answered: not applied */
	{"kind=refuse", PATIENT, {BLOCKED, REFUSED}, 0, {BLOCKED, REFUSED}},
	{"kind=failure", PATIENT, {DOUBT, REFUSED}, 0, {DOUBT, REFUSED}},
	{"kind=status&status=400", PATIENT, {BLOCKED, BLOCKED}, 0, {BLOCKED, BLOCKED}},
	{"kind=status&status=409", PATIENT, {BLOCKED, BLOCKED}, 0, {BLOCKED, BLOCKED}},
	{"kind=status&status=413", PATIENT, {BLOCKED, BLOCKED}, 0, {BLOCKED, BLOCKED}},
	{"kind=status&status=422", PATIENT, {BLOCKED, BLOCKED}, 0, {BLOCKED, BLOCKED}},
	{"kind=status&status=401", PATIENT, {BLOCKED, BLOCKED}, 0, {BLOCKED, BLOCKED}},
	{"kind=status&status=403", PATIENT, {BLOCKED, BLOCKED}, 0, {BLOCKED, BLOCKED}},
	{"kind=status&status=404", PATIENT, {BLOCKED, BLOCKED}, 0, {BLOCKED, BLOCKED}},
	{"kind=status&status=405", PATIENT, {BLOCKED, BLOCKED}, 0, {BLOCKED, BLOCKED}},
	{"kind=status&status=408", PATIENT, {LATER, LATER}, 0, {LATER, LATER}},
	{"kind=status&status=429", PATIENT, {LATER, LATER}, 0, {LATER, LATER}},
	{"kind=redirect", PATIENT, {BLOCKED, BLOCKED}, 0, {BLOCKED, BLOCKED}},
	{"kind=redirect&status=301", PATIENT, {BLOCKED, BLOCKED}, 0, {BLOCKED, BLOCKED}},
	{"kind=redirect&status=302", PATIENT, {BLOCKED, BLOCKED}, 0, {BLOCKED, BLOCKED}},
	{"kind=redirect&status=303", PATIENT, {BLOCKED, BLOCKED}, 0, {BLOCKED, BLOCKED}},
	{"kind=redirect&status=308", PATIENT, {BLOCKED, BLOCKED}, 0, {BLOCKED, BLOCKED}},
	{"kind=drip&status=429&delay_ms=1", PATIENT, {LATER, LATER}, 0, {LATER, LATER}},
	{"kind=extra&status=403", PATIENT, {BLOCKED, BLOCKED}, 0, {BLOCKED, BLOCKED}},
	{"kind=raw&body=HTTP/1.1+429+Later%0D%0A%0D%0A", PATIENT, {LATER, LATER}, 0, {LATER, LATER}},

	/* answered: who knows */
	{"kind=status", PATIENT, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},
	{"kind=apply_status", PATIENT, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
	{"kind=apply_status&status=500", PATIENT, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
	{"kind=apply_status&status=502&body=", PATIENT, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
	{"kind=apply_status&status=504", PATIENT, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
	{"kind=apply_status&status=200&body=", PATIENT, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
	{"kind=html", PATIENT, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},
	{"kind=apply_html", PATIENT, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
	{"kind=html&content_type=application/json", PATIENT, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},
	{"kind=unparsable", PATIENT, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},
	{"kind=apply_unparsable", PATIENT, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
	{"kind=truncated", PATIENT, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},
	{"kind=apply_truncated", PATIENT, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
	{"kind=nested", PATIENT, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},
	{"kind=apply_nested", PATIENT, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
	{"kind=not_utf8", PATIENT, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},
	{"kind=apply_not_utf8", PATIENT, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
	{"kind=duplicate_key", PATIENT, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},
	{"kind=apply_duplicate_key", PATIENT, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
	{"kind=quoted_number", PATIENT, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},
	{"kind=apply_quoted_number", PATIENT, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
	{"kind=exponent", PATIENT, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},
	{"kind=apply_exponent", PATIENT, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
	{"kind=long_number", PATIENT, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},
	{"kind=apply_long_number", PATIENT, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
	{"kind=huge", PATIENT, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},
	{"kind=apply_huge", PATIENT, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
	{"kind=huge&size=66000", PATIENT, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},
	{"kind=extra", PATIENT, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},
	{"kind=drip&delay_ms=1", PATIENT, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},

	/* not answered, or not to the end */
	{"kind=drip&delay_ms=20", HASTY, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},
	{"kind=drip&status=403&delay_ms=20", HASTY, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},
	{"kind=apply_drip&delay_ms=20", HASTY, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
	{"kind=half_header", PATIENT, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},
	{"kind=apply_half_header", PATIENT, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
	{"kind=cut_off", PATIENT, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},
	{"kind=apply_cut_off", PATIENT, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
	{"kind=raw&body=220+ready%0D%0A", PATIENT, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},
	{"kind=apply_raw&body=HTTP/1.1+100+Continue%0D%0A%0D%0A",
	 PATIENT,
	 {DOUBT, DOUBT},
	 1,
	 {DOUBT, DOUBT}},
	{"kind=close", PATIENT, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},
	{"kind=apply_close", PATIENT, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
	{"kind=reset", PATIENT, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},
	{"kind=apply_reset", PATIENT, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
	{"kind=hang", HASTY, {DOUBT, DOUBT}, 0, {DOUBT, DOUBT}},
	{"kind=apply_hang", HASTY, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
	{"kind=apply_late&delay_ms=100", HASTY, {DOUBT, DOUBT}, 1, {DOUBT, DOUBT}},
};

/* What is shared by the rows of one dialect. */
typedef struct Bench
{
	GatewayDialect  dialect;
	const char     *base_url;
	GatewaySession *sessions[2]; /* PATIENT, HASTY */
	FaultServer    *elsewhere;   /* where redirects lead */
} Bench;

/* Arms the fault of a row for an action; a count of 0 is all that come. */
static void
arm(const Bench *bench, size_t i, const char *match, int count)
{
	char fault[300];

	snprintf(fault, sizeof(fault), "%s&match=%s&count=%d&location=%s/x", rows[i].fault, match,
			 count, fault_server_url(bench->elsewhere));
	mock_do(bench->base_url, "fault", fault);
}

/* Reads a figure of /proc/self/status, in bytes. */
static long
memory_figure(const char *name)
{
	char  line[200];
	FILE *status = fopen("/proc/self/status", "r");
	long  figure = 0;

	while (status && fgets(line, sizeof(line), status))
		if (strncmp(line, name, strlen(name)) == 0)
			figure = strtol(line + strlen(name), NULL, 10) * 1024;
	if (status)
		fclose(status);
	return figure;
}

/* Starts to note anew the most memory that is used.  False: the system does not. */
static bool
reset_peak(void)
{
	FILE *file = fopen("/proc/self/clear_refs", "w");
	bool  ok;

	if (!file)
		return false;
	ok = fputs("5", file) >= 0;
	return fclose(file) == 0 && ok;
}

/* A change meets the fault of a row; what follows on the same session does not. */
static void
check_change(const Bench *bench, size_t i, GatewayAction action)
{
	GatewaySession *session = bench->sessions[rows[i].session];
	bool            limited = strstr(rows[i].fault, "huge") != NULL;
	GatewayReply    reply;
	long            before;

	mock_do(bench->base_url, "reset", "");
	EXPECT(ask(session, GATEWAY_DELTA, "u", "5"), GATEWAY_COMPLETED, "before");
	arm(bench, i, action == GATEWAY_DELTA ? "delta" : "refresh", 1);
	limited = limited && reset_peak();
	before = memory_figure("VmRSS:");
	reply = ask(session, action, "u", "7");
	if (limited)
		CHECK(memory_figure("VmHWM:") < before + 8 * 1024 * 1024, "%s took %ld bytes",
			  rows[i].fault, memory_figure("VmHWM:") - before);
	EXPECT(reply, (GatewayOutcome) rows[i].change[bench->dialect], rows[i].fault);
	CHECK(mock_wait_applied(bench->base_url, 1 + rows[i].applied) == 1 + rows[i].applied,
		  "%s: applied %d times", rows[i].fault, mock_applied(bench->base_url) - 1);
	CHECK(reply.names_parameters == (strcmp(rows[i].fault, "kind=refuse") == 0), "\"%s\"",
		  reply.message);

	EXPECT(ask(session, GATEWAY_DELTA, "u", "9"), GATEWAY_COMPLETED, rows[i].fault);
	CHECK(mock_applied(bench->base_url) == 2 + rows[i].applied, "%s: %d changes", rows[i].fault,
		  mock_applied(bench->base_url));
}

/* The same for a query, which libcurl may send again: the fault strikes all of them. */
static void
check_query(const Bench *bench, size_t i)
{
	GatewaySession *session = bench->sessions[rows[i].session];
	const char     *balance = bench->dialect == GATEWAY_ZGSM ? "5" : "7";
	GatewayOutcome  expected = (GatewayOutcome) rows[i].query[bench->dialect];
	GatewayReply    reply;

	mock_do(bench->base_url, "reset", "");
	mock_do(bench->base_url, "balance",
			bench->dialect == GATEWAY_ZGSM ? "user=u&quota=7&used=2" : "user=u&quota=7");
	EXPECT(ask(session, GATEWAY_QUERY, "u", NULL), GATEWAY_COMPLETED, "before");
	arm(bench, i, "query", 0);
	reply = ask(session, GATEWAY_QUERY, "u", NULL);
	EXPECT(reply, expected, rows[i].fault);
	CHECK(strcmp(reply.balance, expected == GATEWAY_COMPLETED ? balance : "") == 0,
		  "%s: balance \"%s\"", rows[i].fault, reply.balance);

	mock_do(bench->base_url, "fault/clear", "");
	reply = ask(session, GATEWAY_QUERY, "u", NULL);
	EXPECT(reply, GATEWAY_COMPLETED, rows[i].fault);
	CHECK(strcmp(reply.balance, balance) == 0, "%s: then %s", rows[i].fault, reply.balance);
}

/* Retry-After in its two forms, the second as the three standards write dates. */
static void
check_retry_after(const Bench *bench)
{
	static const struct
	{
		const char *form;
		int         ahead;
		double      least;
		double      most;
	} cases[] = {
		{"7", 0, 7, 7},
		{"%a,+%d+%b+%Y+%H:%M:%S+GMT", 90, 80, 90},
		{"%A,+%d-%b-%y+%H:%M:%S+GMT", 90, 80, 90},
		{"%a+%b+%d+%H:%M:%S+%Y", 90, 80, 90},
		{"%a,+%d+%b+%Y+%H:%M:%S+GMT", -90, 0, 0},
		{"%a,+%d+%b+%Y+%H:%M:%S+GMT", 200000, 86400, 86400},
		{"after+a+while", 0, -1, -1},
	};
	static const char *const actions[] = {"delta", "query"};
	size_t                   i;
	size_t                   j;

	for (i = 0; i < COUNT(cases); i++)
		for (j = 0; j < COUNT(actions); j++)
		{
			time_t       when = time(NULL) + cases[i].ahead;
			char         value[80];
			char         fault[200];
			GatewayReply reply;

			strftime(value, sizeof(value), cases[i].form, gmtime(&when));
			snprintf(fault, sizeof(fault), "kind=status&status=429&match=%s&retry_after=%s",
					 actions[j], value);
			mock_do(bench->base_url, "fault", fault);
			reply = ask(bench->sessions[PATIENT], j == 0 ? GATEWAY_DELTA : GATEWAY_QUERY, "u", "1");
			EXPECT(reply, GATEWAY_THROTTLED, fault);
			CHECK(reply.retry_after >= cases[i].least && reply.retry_after <= cases[i].most,
				  "%s gave %g", fault, reply.retry_after);
		}
}

/* Every kind that the mock knows has a row. */
static void
check_all_kinds(const Bench *bench)
{
	const char *kinds = mock_do(bench->base_url, "fault/kinds", NULL);
	const char *name;
	const char *end;
	int         known = 0;

	for (name = strchr(kinds, '"'); name; name = strchr(end + 1, '"'))
	{
		size_t i;
		size_t length;

		name++;
		end = strchr(name, '"');
		length = (size_t) (end - name);
		for (i = 0; i < COUNT(rows); i++)
			if (strncmp(rows[i].fault + 5, name, length) == 0 &&
				strchr("&", rows[i].fault[5 + length]) != NULL)
				break;
		CHECK(i < COUNT(rows), "kind %.*s has no row", (int) length, name);
		known++;
	}
	CHECK(known > 30, "%d kinds", known);
}

void
test_kinds(GatewayDialect dialect, const char *base_url)
{
	Bench         bench = {.dialect = dialect, .base_url = base_url};
	GatewayConfig config = test_config(dialect, base_url);
	size_t        i;

	config.max_reply_bytes = 65536;
	bench.elsewhere = fault_server_start();
	bench.sessions[PATIENT] = open_session(&config);
	config.request_timeout_ms = 300;
	bench.sessions[HASTY] = open_session(&config);

	check_all_kinds(&bench);
	for (i = 0; i < COUNT(rows); i++)
	{
		check_change(&bench, i, GATEWAY_DELTA);
		if (rows[i].session == PATIENT)
			check_change(&bench, i, GATEWAY_REFRESH);
		check_query(&bench, i);
	}
	check_retry_after(&bench);
	CHECK(fault_server_connections(bench.elsewhere) == 0, "a redirect was followed");

	gateway_close(bench.sessions[PATIENT]);
	gateway_close(bench.sessions[HASTY]);
	fault_server_stop(bench.elsewhere);
}

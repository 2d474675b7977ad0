/*
 * audit_queries.c
 *		Of an audit: asks the gateway about all users that were listed.
 */
#include "postgres.h"

#include "executor/tuptable.h"
#include "utils/builtins.h"
#include "utils/memutils.h"

#include "endpoint/await.h"
#include "manual/audit.h"

/* Users that are asked about before their answers are put away in order. */
#define BATCH 512

/* Answers taken at once from a session. */
#define POLL_RESULTS 64

/* How often a user is asked about, and the pause in between. */
#define TRIES 3
#define PAUSE_MS 1000

/* The longest pause that a gateway can ask for. */
#define PAUSE_MAX_MS 60000

/* After so many failures without an answer in between the gateway is given up. */
#define MAX_FAILURES 100

/* What became of a user who is asked about. */
typedef enum AskedState
{
	ASKED_NOT, /* yet, or not at the moment */
	ASKED_NOW,
	ASKED_DONE,
} AskedState;

/* A user who is asked about. */
typedef struct AuditUser
{
	char      *user_id;
	AskedState state;
	int        tries;
	MonoTime   due;
	char       figure[64];    /* zgsm: the total, higress: what remains; "": not known */
	bool       is_below_zero; /* which is all that is known */
	char      *problem;       /* why it is not known */
} AuditUser;

/* Raises an error with what the gateway said last: it does not answer. */
void
audit_give_up(const Audit *audit)
{
	ereport(ERROR,
			(errcode(ERRCODE_CONNECTION_FAILURE),
			 errmsg("gateway \"%s\" does not answer: %s", audit->row->name,
					audit->last_failure.message),
			 errdetail("%lld users were answered for before.", (long long) audit->answered)));
}

/*
 * Takes in an answer.  A user who is not answered for is asked about again after
 * a pause; a gateway that asks for one is left alone for as long as it says.
 */
static void
take_answer(Audit *audit, AuditUser *user, const GatewayReply *reply)
{
	bool is_zgsm = audit->row->dialect == GATEWAY_ZGSM;
	bool is_final = reply->outcome == GATEWAY_REFUSED ||
					(reply->outcome == GATEWAY_BLOCKED && reply->names_parameters);

	user->state = ASKED_DONE;
	if (reply->outcome == GATEWAY_COMPLETED)
	{
		user->is_below_zero = reply->below_zero;
		strlcpy(user->figure, is_zgsm && !reply->below_zero ? reply->total : reply->balance,
				sizeof(user->figure));
		audit->failures = 0;
		audit->answered++;
		return;
	}
	if (!is_final)
	{
		audit->last_failure = *reply;
		if (++audit->failures >= MAX_FAILURES)
			audit_give_up(audit);
		if (reply->outcome == GATEWAY_THROTTLED)
			audit->paused_until =
				mono_in_ms((int64) Min(Max(reply->retry_after * 1000, PAUSE_MS), PAUSE_MAX_MS));
		else
			user->tries++;
		if (user->tries < TRIES)
		{
			user->state = ASKED_NOT;
			user->due = mono_in_ms(PAUSE_MS);
			return;
		}
	}
	user->problem = MemoryContextStrdup(audit->batch_memory, reply->message);
	audit->unanswered++;
}

/* Sends as many queries as may be sent now.  Returns when to come again. */
static MonoTime
send_queries(Audit *audit, AuditUser *users, int count)
{
	MonoTime now = mono_now();
	MonoTime next = MONO_NEVER;
	int      i;

	if (audit->paused_until > now)
		return audit->paused_until;
	for (i = 0; i < count && gateway_free_slots(audit->session) > 0; i++)
	{
		GatewayRequest query = {GATEWAY_QUERY, users[i].user_id};

		if (users[i].state != ASKED_NOT)
			continue;
		if (users[i].due > now)
		{
			next = Min(next, users[i].due);
			continue;
		}
		/* evenly, not in bursts as the token bucket of deliveries allows: an audit has no haste */
		if (audit->row->rate_limit > 0 && audit->next_send > now)
			return audit->next_send;
		query.token = &users[i];
		if (!gateway_submit(audit->session, &query))
		{
			if (gateway_in_flight(audit->session) == 0)
				ereport(ERROR, (errcode(ERRCODE_OUT_OF_MEMORY), errmsg("out of memory")));
			break;
		}
		users[i].state = ASKED_NOW;
		if (audit->row->rate_limit > 0)
			audit->next_send =
				Max(audit->next_send, now) + (MonoTime) (USECS_PER_SEC / audit->row->rate_limit);
	}
	return next;
}

/* Asks about users until each of them has an answer or none is to be had. */
static void
ask_about(Audit *audit, AuditUser *users, int count)
{
	static GatewayResult results[POLL_RESULTS];
	int                  left = count;

	while (left > 0)
	{
		MonoTime next;
		int      got;
		int      i;

		next = send_queries(audit, users, count);
		got = await_answers(audit->session, mono_ms_until(next, PAUSE_MS), results, POLL_RESULTS);
		for (i = 0; i < got; i++)
		{
			AuditUser *user = results[i].token;

			take_answer(audit, user, &results[i].reply);
			left -= user->state == ASKED_DONE;
		}
	}
}

/* Puts the answers of a batch away, in its order. */
static void
put_answers(Audit *audit, const AuditUser *users, int count)
{
	int i;

	for (i = 0; i < count; i++)
	{
		const AuditUser *user = &users[i];
		Datum            values[4];
		bool             nulls[4] = {false, user->figure[0] == '\0', false, user->problem == NULL};

		values[0] = CStringGetTextDatum(user->user_id);
		values[1] = nulls[1] ? (Datum) 0 : CStringGetTextDatum(user->figure);
		values[2] = BoolGetDatum(user->is_below_zero);
		values[3] = nulls[3] ? (Datum) 0 : CStringGetTextDatum(user->problem);
		tuplestore_putvalues(audit->answers, audit->answer_desc, values, nulls);
	}
}

/*
 * Takes the next row of a tuplestore; false: there is none.  One that comes from
 * disk is allocated in the current memory context and belongs to the slot.
 */
bool
audit_next_row(const Audit *audit, Tuplestorestate *store, TupleTableSlot *slot)
{
	MemoryContext caller = MemoryContextSwitchTo(audit->memory);
	bool          found = tuplestore_gettupleslot(store, true, false, slot);

	MemoryContextSwitchTo(caller);
	return found;
}

/* Asks about all users that were listed. */
void
audit_read_balances(Audit *audit)
{
	TupleTableSlot *slot = MakeSingleTupleTableSlot(audit->user_desc, &TTSOpsMinimalTuple);
	bool            more = true;

	while (more)
	{
		MemoryContext caller = MemoryContextSwitchTo(audit->batch_memory);
		AuditUser    *users = palloc0(sizeof(AuditUser) * BATCH);
		int           count = 0;

		while (count < BATCH && (more = audit_next_row(audit, audit->users, slot)))
		{
			bool isnull;

			users[count].due = MONO_PAST;
			users[count++].user_id = TextDatumGetCString(slot_getattr(slot, 1, &isnull));
		}
		ask_about(audit, users, count);
		put_answers(audit, users, count);
		MemoryContextSwitchTo(caller);
		MemoryContextReset(audit->batch_memory);
	}
	ExecDropSingleTupleTableSlot(slot);
}

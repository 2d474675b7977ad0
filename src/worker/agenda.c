/*
 * agenda.c
 *		What the scheduler of a database has to do, and when.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "common/hashfn.h"
#include "executor/spi.h"
#include "utils/hsearch.h"
#include "utils/memutils.h"

#include "delivery/statement.h"
#include "schedule/schedule.h"
#include "worker/agenda.h"
#include "worker/process.h"
#include "worker/wake.h"

/* A strategy that failed is tried again after these times. */
#define RETRY_MIN_MS (5 * 1000)
#define RETRY_MAX_MS (5 * 60 * 1000)

/* By every row: who commits late may have written before what was seen already. */
static Statement look = {
	"SELECT coalesce((SELECT i.workers_enabled FROM quota_manager.quota_installation i),"
	" true)::int4::int8, s.*, g.*, m.*"
	" FROM (SELECT count(*), coalesce(sum(hashtext(s.id || ' ' || s.version)), 0)::int8,"
	" max(s.update_time)"
	" FROM quota_manager.quota_strategy s) s,"
	" (SELECT count(*),"
	" coalesce(sum(hashtext(g.id || ' ' || extract(epoch FROM g.update_time))), 0)::int8"
	" FROM quota_manager.quota_gateway g) g,"
	" (SELECT coalesce(sum(hashtext(m.model || ' ' || m.gateway)), 0)::int8"
	" FROM quota_manager.quota_model m) m",
	0,
	{0},
	NULL};

static Statement find_next_firing = {"SELECT min(quota_manager.awaited_firing(s, $1))"
									 " FROM quota_manager.quota_strategy s"
									 " WHERE s.type = 'periodic' AND s.enabled AND NOT s.archived",
									 1,
									 {TIMESTAMPTZOID},
									 NULL};

struct Agenda
{
	MemoryContext context;
	HTAB         *strategies;
	Fingerprint   fingerprint;
	uint64        looked_at;     /* completed_transactions() before the last look; 0: none */
	bool          enabled;       /* stop_workers() was not called, as of then */
	bool          changed;       /* strategies changed since they were taken */
	bool          firing_known;  /* next_firing is true of this fingerprint */
	TimestampTz   covered_until; /* of the schedule clock: firings up to here were taken */
	TimestampTz   next_firing;   /* of the schedule clock */
	MonoTime      next_singles;  /* when all single ones are looked at next */
	MonoTime      next_retry;
	MonoTime      taken_at;     /* when agenda_take looked */
	bool          postponed;    /* not all that was taken was run */
	bool          took_singles; /* all single strategies were wanted then */
};

/*
 * See agenda.h.
 */
Agenda *
agenda_create(void)
{
	Agenda *agenda = palloc0(sizeof(Agenda));

	agenda->context = CurrentMemoryContext;
	agenda_forget(agenda);
	return agenda;
}

/*
 * See agenda.h.
 */
void
agenda_forget(Agenda *agenda)
{
	HASHCTL control = {0};

	if (agenda->strategies != NULL)
		hash_destroy(agenda->strategies);
	control.keysize = sizeof(int32);
	control.entrysize = sizeof(Remembered);
	control.hcxt = agenda->context;
	agenda->strategies = hash_create("quota_manager strategies", 64, &control,
									 HASH_ELEM | HASH_BLOBS | HASH_CONTEXT);
	memset(&agenda->fingerprint, 0, sizeof(Fingerprint));
	agenda->looked_at = 0;
	agenda->changed = true;
	agenda->firing_known = false;
	agenda->covered_until = DT_NOBEGIN;
	agenda->next_firing = DT_NOBEGIN;
	agenda->next_singles = MONO_PAST;
	agenda->next_retry = MONO_NEVER;
}

/*
 * Column of the one row that SPI has just returned; `missing` if it is null.
 */
static int64
single_value(int column, int64 missing)
{
	bool  isnull;
	Datum value = SPI_getbinval(SPI_tuptable->vals[0], SPI_tuptable->tupdesc, column, &isnull);

	return isnull ? missing : DatumGetInt64(value);
}

/*
 * Runs a query that returns one row.
 */
static void
query_one_row(Statement *query, Datum *values)
{
	uint64 rows = statement_run(query, values, NULL);

	if (rows != 1)
		elog(ERROR, "unexpected result of \"%s\": " UINT64_FORMAT " rows", query->sql, rows);
}

/*
 * Finds the first firing of any periodic strategy that the last look did not
 * cover.  What was due then and failed is not waited for here: agenda_note
 * does that.
 */
static void
compute_next_firing(Agenda *agenda)
{
	Datum values[] = {TimestampTzGetDatum(agenda->covered_until)};

	query_one_row(&find_next_firing, values);
	agenda->next_firing = single_value(1, DT_NOEND);
	agenda->firing_known = true;
	SPI_freetuptable(SPI_tuptable);
}

/*
 * Gateways or models were changed: what failed for want of one need not wait.
 */
static void
end_back_offs(Agenda *agenda)
{
	HASH_SEQ_STATUS iterator;
	Remembered     *known;

	hash_seq_init(&iterator, agenda->strategies);
	while ((known = hash_seq_search(&iterator)) != NULL)
		known->retry.not_before = MONO_PAST;
}

/*
 * Takes over what was found, which may be news.
 */
static void
compare(Agenda *agenda, const Fingerprint *found)
{
	const Fingerprint *old = &agenda->fingerprint;

	if (memcmp(found, old, sizeof(Fingerprint)) == 0)
		return;
	if (found->gateways != old->gateways || found->gateway_times != old->gateway_times ||
		found->models != old->models)
		end_back_offs(agenda);
	agenda->fingerprint = *found;
	agenda->changed = true;
	agenda->firing_known = false;
}

/*
 * See agenda.h.  Where nothing was committed since, there is nothing to be
 * seen, and no transaction is needed.
 */
bool
agenda_look(Agenda *agenda, const WorkUnit *unit)
{
	MemoryContext caller_context = CurrentMemoryContext;
	uint64        completed = completed_transactions();
	Fingerprint   found;

	if (completed != 0 && completed == agenda->looked_at && agenda->firing_known)
		return agenda->enabled;
	unit->begin();
	query_one_row(&look, NULL);
	agenda->enabled = single_value(1, true) != 0;
	found.strategies = single_value(2, 0);
	found.versions = single_value(3, 0);
	found.update_time = single_value(4, DT_NOBEGIN);
	found.gateways = single_value(5, 0);
	found.gateway_times = single_value(6, 0);
	found.models = single_value(7, 0);
	SPI_freetuptable(SPI_tuptable);
	compare(agenda, &found);
	if (agenda->enabled && !agenda->firing_known)
		compute_next_firing(agenda);
	unit->commit();
	agenda->looked_at = completed;
	MemoryContextSwitchTo(caller_context);
	return agenda->enabled;
}

/*
 * See agenda.h.
 */
bool
agenda_has_work(const Agenda *agenda)
{
	MonoTime now = mono_now();

	return agenda->changed || now >= agenda->next_singles || now >= agenda->next_retry ||
		   schedule_now() >= agenda->next_firing;
}

/*
 * Whether a strategy that is due is to be run now.
 */
static bool
is_wanted(Agenda *agenda, const DueStrategy *strategy)
{
	bool        found;
	Remembered *known = hash_search(agenda->strategies, &strategy->id, HASH_ENTER, &found);

	if (!found || known->version != strategy->version)
	{
		known->version = strategy->version;
		known->complaint = 0;
		backoff_none(&known->retry);
		return true;
	}
	if (known->retry.delay_ms > 0)
		return known->retry.not_before <= agenda->taken_at;
	return !strategy->single || agenda->took_singles;
}

/*
 * See agenda.h.
 */
List *
agenda_take(Agenda *agenda, const WorkUnit *unit)
{
	TimestampTz clock = schedule_now();
	bool        singles;
	List       *due;
	List       *wanted = NIL;
	ListCell   *cell;

	agenda->taken_at = mono_now();
	agenda->took_singles = agenda->taken_at >= agenda->next_singles;
	singles = agenda->took_singles || agenda->changed || agenda->taken_at >= agenda->next_retry;

	due = due_strategies(unit, singles);
	agenda->covered_until = clock;
	agenda->changed = false;
	agenda->postponed = false;
	agenda->firing_known = false;
	foreach (cell, due)
	{
		DueStrategy *strategy = lfirst(cell);

		if (is_wanted(agenda, strategy))
			wanted = lappend(wanted, strategy);
	}
	return wanted;
}

/*
 * Logs what is wrong with a strategy, once until something else is.
 */
static void
complain(Remembered *known, const DueStrategy *strategy, const TickResult *result)
{
	uint32 complaint = 0;

	if (result != NULL && result->error != NULL)
		complaint = string_hash(result->error, strlen(result->error) + 1) | 1;
	else if (result != NULL && result->unknown_balance > 0)
		complaint = 2;
	if (complaint != 0 && complaint != known->complaint)
	{
		if (complaint != 2)
			ereport(WARNING, (errcode(ERRCODE_WARNING),
							  errmsg("strategy \"%s\" failed: %s", strategy->name, result->error)));
		else
			ereport(LOG, (errmsg("strategy \"%s\" waits for " INT64_FORMAT
								 " balances that could not be read",
								 strategy->name, result->unknown_balance)));
	}
	known->complaint = complaint;
}

/*
 * See agenda.h.
 */
void
agenda_note(Agenda *agenda, const DueStrategy *strategy, const TickResult *result)
{
	Remembered *known = hash_search(agenda->strategies, &strategy->id, HASH_FIND, NULL);

	if (known == NULL)
		return;
	complain(known, strategy, result);
	if (result == NULL || result->error != NULL || result->unknown_balance > 0)
		backoff_more(&known->retry, RETRY_MIN_MS, RETRY_MAX_MS);
	else
		backoff_none(&known->retry);
}

/*
 * See agenda.h.  A retry whose time had come and that was not run is not due
 * any more.
 */
void
agenda_done(Agenda *agenda)
{
	HASH_SEQ_STATUS iterator;
	Remembered     *known;

	if (agenda->took_singles)
		agenda->next_singles = mono_add_ms(agenda->taken_at, (int64) scan_interval * 1000);
	agenda->changed = agenda->postponed;
	agenda->next_retry = MONO_NEVER;
	hash_seq_init(&iterator, agenda->strategies);
	while ((known = hash_seq_search(&iterator)) != NULL)
	{
		if (known->retry.delay_ms == 0)
			continue;
		if (known->retry.not_before <= agenda->taken_at)
			backoff_none(&known->retry);
		else
			agenda->next_retry = Min(agenda->next_retry, known->retry.not_before);
	}
}

/*
 * See agenda.h.  No strategy has the version 0, so it is taken for an edited one.
 */
void
agenda_postpone(Agenda *agenda, const DueStrategy *strategy)
{
	Remembered *known = hash_search(agenda->strategies, &strategy->id, HASH_FIND, NULL);

	if (known != NULL)
		known->version = 0;
	agenda->postponed = true;
}

/*
 * See agenda.h.  Where there are too many strategies, all are looked at again.
 */
void
agenda_save(const Agenda *agenda, AgendaMemory *memory)
{
	HASH_SEQ_STATUS iterator;
	Remembered     *known;

	memory->is_set = hash_get_num_entries(agenda->strategies) <= AGENDA_MEMORY_SIZE;
	memory->changed = agenda->changed;
	memory->fingerprint = agenda->fingerprint;
	memory->covered_until = agenda->covered_until;
	memory->next_singles = agenda->next_singles;
	memory->count = 0;
	if (!memory->is_set)
		return;
	hash_seq_init(&iterator, agenda->strategies);
	while ((known = hash_seq_search(&iterator)) != NULL)
		memory->strategies[memory->count++] = *known;
}

/*
 * See agenda.h.
 */
void
agenda_restore(Agenda *agenda, const AgendaMemory *memory)
{
	agenda_forget(agenda);
	if (!memory->is_set)
		return;
	agenda->changed = memory->changed;
	agenda->fingerprint = memory->fingerprint;
	agenda->covered_until = memory->covered_until;
	agenda->next_singles = memory->next_singles;
	for (int i = 0; i < memory->count; i++)
	{
		Remembered *known =
			hash_search(agenda->strategies, &memory->strategies[i].id, HASH_ENTER, NULL);

		*known = memory->strategies[i];
		if (known->retry.delay_ms > 0)
			agenda->next_retry = Min(agenda->next_retry, known->retry.not_before);
	}
}

/*
 * See agenda.h.
 */
long
agenda_pause(const Agenda *agenda, long limit_ms)
{
	TimestampTz now = schedule_now();
	long        pause = limit_ms;

	if (agenda->changed || !agenda->firing_known)
		return 1;
	if (agenda->next_firing > now &&
		agenda->next_firing < TimestampTzPlusMilliseconds(now, limit_ms))
		pause = (agenda->next_firing - now) / 1000 + 1;
	pause = Min(pause, mono_ms_until(agenda->next_singles, limit_ms));
	return Max(Min(pause, mono_ms_until(agenda->next_retry, limit_ms)), 1);
}

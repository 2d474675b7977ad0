/*
 * courier.c
 *		A courier: its senders, its connections, its transactions.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "delivery/courier.h"
#include "common/statement.h"
#include "common/subtransaction.h"
#include "delivery/last_error.h"

static Statement find_work = {
	"SELECT EXISTS (SELECT 1 FROM quota_manager.quota_run r"
	" WHERE r.undelivered AND r.first_grant_id IS NOT NULL), count(*), max(g.update_time)"
	" FROM quota_manager.quota_gateway g"};

/*
 * Ends the connections and releases the locks, whatever happens to the memory
 * afterwards.
 */
static void
close_courier(void *argument)
{
	Courier  *courier = argument;
	ListCell *cell;

	foreach (cell, courier->senders)
	{
		Sender *sender = lfirst(cell);

		sender_close(sender);
		sender_release_lock(sender);
	}
	courier->senders = NIL;
	courier->gateways = NIL;
}

Courier *
courier_create(const WorkUnit *unit)
{
	MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext, "quota_manager courier",
												 ALLOCSET_DEFAULT_SIZES);
	Courier      *courier = MemoryContextAllocZero(memory, sizeof(Courier));

	courier->memory = memory;
	courier->turn_memory =
		AllocSetContextCreate(memory, "quota_manager courier turn", ALLOCSET_DEFAULT_SIZES);
	courier->runs_memory =
		AllocSetContextCreate(memory, "quota_manager runs", ALLOCSET_DEFAULT_SIZES);
	courier->unit = unit;
	courier->gateways_read = MONO_PAST;
	courier->on_reset.func = close_courier;
	courier->on_reset.arg = courier;
	MemoryContextRegisterResetCallback(memory, &courier->on_reset);
	return courier;
}

void
courier_free(Courier *courier)
{
	MemoryContextDelete(courier->memory);
}

/*
 * The sender of a gateway; NULL: there is none yet.
 */
static Sender *
find_sender(Courier *courier, int32 gateway_id)
{
	ListCell *cell;

	foreach (cell, courier->senders)
	{
		Sender *sender = lfirst(cell);

		if (sender->gateway_id == gateway_id)
			return sender;
	}
	return NULL;
}

/*
 * Adds to a list of senders those of `gone` that still have something in flight
 * or to settle, and frees the others, and `gone`.
 */
static List *
drop_idle_senders(List *senders, List *gone)
{
	ListCell *cell;

	foreach (cell, gone)
	{
		Sender *sender = lfirst(cell);

		sender_update_row(sender, NULL);
		if (grants_claimed(&sender->grants) || sender_in_flight(sender) > 0)
		{
			senders = lappend(senders, sender);
			continue;
		}
		sender_release_lock(sender);
		sender_free(sender);
	}
	list_free(gone);
	return senders;
}

/*
 * Everything that can fail comes first: the rows and the senders for new ones are
 * made, and only then they take the place of the old ones.
 */
void
courier_read_gateways(Courier *courier)
{
	MemoryContext memory =
		AllocSetContextCreate(courier->turn_memory, "quota_manager gateways", ALLOCSET_SMALL_SIZES);
	List         *rows = gateway_rows_read(memory);
	MemoryContext caller = MemoryContextSwitchTo(courier->memory);
	List         *senders = NIL;
	List         *gone;
	ListCell     *cell;
	ListCell     *other;

	foreach (cell, rows)
	{
		GatewayRow *row = lfirst(cell);
		Sender     *sender = find_sender(courier, row->id);

		senders = lappend(senders, sender != NULL ? sender : sender_create(row, courier->memory));
	}
	gone = list_difference_ptr(courier->senders, senders);

	MemoryContextSetParent(memory, courier->memory);
	forboth (cell, senders, other, rows)
	{
		Sender *sender = lfirst(cell);

		if (sender->row != lfirst(other))
			sender_update_row(sender, lfirst(other));
	}
	list_free(courier->senders);
	courier->senders = drop_idle_senders(senders, gone);
	if (courier->gateways_memory != NULL)
		MemoryContextDelete(courier->gateways_memory);
	courier->gateways_memory = memory;
	courier->gateways = rows;
	courier->gateways_read = mono_now();
	MemoryContextSwitchTo(caller);
}

void
courier_forget(Courier *courier)
{
	MemoryContextReset(courier->runs_memory);
	courier->runs = NIL;
	courier->gateways_read = MONO_PAST;
}

/*
 * Batches are joined to their rows by the key whatever the planner thinks of a
 * table that was just filled: plans are made once, and the wrong one reads the
 * whole table for every batch.  The cost of plans that are out of favour must
 * not start the compiler, either.
 */
static void
plan_by_key(void)
{
	set_local("enable_seqscan", "off");
	set_local("enable_hashjoin", "off");
	set_local("enable_mergejoin", "off");
	set_local("max_parallel_workers_per_gather", "0");
	set_local("jit", "off");
}

/* What is done in a transaction of a courier. */
typedef struct Work
{
	Courier *courier;
	void (*body)(Courier *courier, void *argument);
	void *argument;
} Work;

static void
do_work(void *argument)
{
	Work *work = argument;

	work->body(work->courier, work->argument);
}

ErrorData *
courier_transact(Courier *courier, void (*body)(Courier *courier, void *argument), void *argument)
{
	MemoryContext caller = CurrentMemoryContext;
	Work          work = {courier, body, argument};
	ErrorData    *error;

	courier->unit->begin();
	plan_by_key();
	/* to lose a settlement in a failover is to be in doubt; to wait for a standby is to hang */
	if (courier->is_leaving)
		set_local("synchronous_commit", "local");
	MemoryContextSwitchTo(courier->turn_memory);
	error = subtransaction_try(do_work, &work, courier->memory);
	MemoryContextSwitchTo(caller);
	courier->unit->commit();
	MemoryContextReset(courier->turn_memory);
	return error;
}

void
courier_trouble(Courier *courier, const char *message)
{
	char *old = courier->trouble;

	courier->trouble = MemoryContextStrdup(courier->memory, message);
	if (old != NULL)
		pfree(old);
}

/*
 * The body of that transaction.
 */
static void
write_trouble(Courier *courier, void *argument)
{
	last_error_write(WORK_DELIVERY, argument);
}

void
courier_write_trouble(Courier *courier)
{
	char      *trouble = courier->trouble;
	ErrorData *error;

	if (trouble == NULL)
		return;
	courier->trouble = NULL;
	error = courier_transact(courier, write_trouble, trouble);
	if (error != NULL)
		FreeErrorData(error);
	pfree(trouble);
}

/*
 * Whether the gateways are, by their number and the time of their last change,
 * those that were read last.
 */
static bool
gateways_are_known(const Courier *courier, int64 count, TimestampTz update_time)
{
	TimestampTz last = DT_NOBEGIN;
	ListCell   *cell;

	foreach (cell, courier->gateways)
		last = Max(last, ((const GatewayRow *) lfirst(cell))->update_time);
	return count == list_length(courier->gateways) && update_time == last;
}

bool
courier_finds_work(Courier *courier, const WorkUnit *unit)
{
	bool        found;
	int64       count;
	TimestampTz update_time;

	unit->begin();
	(void) statement_run(&find_work, NULL);
	found = result_bool(0, 1);
	count = result_int64(0, 2);
	update_time = result_is_null(0, 3) ? DT_NOBEGIN : result_time(0, 3);
	SPI_freetuptable(SPI_tuptable);
	unit->commit();
	return found || !gateways_are_known(courier, count, update_time);
}

/*
 * senders.c
 *		The senders of a process, and what it has read of tables.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "common/compat.h"
#include "common/statement.h"
#include "common/subtransaction.h"
#include "common/last_error.h"
#include "delivery/pending_work.h"
#include "delivery/senders.h"

static Statement find_work = {
	"SELECT EXISTS (SELECT 1 FROM quota_manager.quota_run r"
	" WHERE r.undelivered AND r.first_grant_id IS NOT NULL), count(*), max(g.update_time)"
	" FROM quota_manager.quota_gateway g"};

/*
 * Ends the connections and releases the locks, whatever happens to the memory
 * afterwards.
 */
static void
close_senders(void *argument)
{
	Delivery *delivery = argument;

	foreach_ptr (Sender, sender, delivery->senders)
	{
		sender_close(sender);
		sender_release_lock(sender);
	}
	delivery->senders = NIL;
}

/*
 * Makes what a process needs to deliver, in the current memory context; the
 * context's reset or deletion closes connections and releases sender locks.
 */
Delivery *
delivery_create(const WorkUnit *unit)
{
	MemoryContext memory = AllocSetContextCreate(CurrentMemoryContext, "quota_manager delivery",
												 ALLOCSET_DEFAULT_SIZES);
	Delivery     *delivery = MemoryContextAllocZero(memory, sizeof(Delivery));

	delivery->memory = memory;
	delivery->batch_memory =
		AllocSetContextCreate(memory, "quota_manager batch", ALLOCSET_DEFAULT_SIZES);
	delivery->runs_memory =
		AllocSetContextCreate(memory, "quota_manager runs", ALLOCSET_DEFAULT_SIZES);
	delivery->unit = unit;
	delivery->gateways_read = MONO_PAST;
	brakes_init(&delivery->brakes, memory);
	delivery->on_reset.func = close_senders;
	delivery->on_reset.arg = delivery;
	MemoryContextRegisterResetCallback(memory, &delivery->on_reset);
	return delivery;
}

/* Closes and frees all of it. */
void
delivery_free(Delivery *delivery)
{
	MemoryContextDelete(delivery->memory);
}

/* The sender for a gateway: the one there is, or a new one. */
static Sender *
sender_for(Delivery *delivery, GatewayRow *row)
{
	foreach_ptr (Sender, sender, delivery->senders)
		if (sender->gateway_id == row->id)
			return sender;
	return sender_create(row, delivery->memory);
}

/*
 * Adds to a list of senders those of deleted gateways that still have something
 * in flight or to settle, and frees the others.
 */
static List *
drop_idle_senders(List *senders, List *gone)
{
	foreach_ptr (Sender, sender, gone)
	{
		(void) sender_update_row(sender, NULL);
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
 * Reads the gateways again, and makes and updates their senders.  In a
 * transaction; an error leaves everything as it was: what can fail comes first.
 */
void
senders_read_gateways(Delivery *delivery)
{
	MemoryContext memory = AllocSetContextCreate(delivery->batch_memory, "quota_manager gateways",
												 ALLOCSET_SMALL_SIZES);
	List         *rows = gateway_rows_read(memory);
	MemoryContext caller = MemoryContextSwitchTo(delivery->memory);
	List         *senders = NIL;
	List         *gone;
	ListCell     *cell;
	ListCell     *other;

	foreach_ptr (GatewayRow, row, rows)
		senders = lappend(senders, sender_for(delivery, row));
	gone = list_difference_ptr(delivery->senders, senders);

	MemoryContextSetParent(memory, delivery->memory);
	forboth (cell, senders, other, rows)
	{
		Sender *sender = lfirst(cell);

		if (sender->row != lfirst(other) && sender_update_row(sender, lfirst(other)))
			pending_work_forget(delivery->runs, sender->row->name);
	}
	list_free(delivery->senders);
	delivery->senders = drop_idle_senders(senders, gone);
	if (delivery->gateways_memory != NULL)
		MemoryContextDelete(delivery->gateways_memory);
	delivery->gateways_memory = memory;
	delivery->gateways_read = mono_now();
	MemoryContextSwitchTo(caller);
}

/* Throws away what was read of tables, after an error. */
void
senders_forget_tables(Delivery *delivery)
{
	MemoryContextReset(delivery->runs_memory);
	delivery->runs = NIL;
	delivery->gateways_read = MONO_PAST;
	brakes_forget(&delivery->brakes);
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

/*
 * Runs body in a transaction of the process's kind, with a memory context that
 * is reset afterwards.  An error in body is caught: what body did to tables is
 * undone, the transaction is ended, and the error is returned, allocated in
 * the delivery's memory.  NULL: all is committed.
 */
ErrorData *
senders_transact(Delivery *delivery, void (*body)(void *argument), void *argument)
{
	MemoryContext caller = CurrentMemoryContext;
	ErrorData    *error;

	delivery->unit->begin();
	plan_by_key();
	/* to wait for a standby is to hang; a lost settlement leaves its grant in doubt, which is safe */
	if (delivery->is_leaving)
		set_local("synchronous_commit", "local");
	MemoryContextSwitchTo(delivery->batch_memory);
	error = subtransaction_try(body, argument, delivery->memory);
	MemoryContextSwitchTo(caller);
	delivery->unit->commit();
	MemoryContextReset(delivery->batch_memory);
	return error;
}

/*
 * Notes what went wrong with a gateway, to be written when no claim waits to be
 * sent.
 */
void
senders_note_error(Delivery *delivery, const char *message)
{
	char *old = delivery->last_error;

	delivery->last_error = MemoryContextStrdup(delivery->memory, message);
	if (old != NULL)
		pfree(old);
}

/* The body of the transaction that writes it. */
static void
write_error(void *argument)
{
	last_error_write(WORK_DELIVERY, argument);
}

/*
 * Writes what was noted, in a transaction of its own; that it cannot be written
 * does not matter.
 */
void
senders_write_error(Delivery *delivery)
{
	char      *message = delivery->last_error;
	ErrorData *error;

	if (message == NULL)
		return;
	delivery->last_error = NULL;
	error = senders_transact(delivery, write_error, message);
	if (error != NULL)
		FreeErrorData(error);
	pfree(message);
}

/*
 * Whether there are undelivered runs, or gateways have changed: asked in one
 * short transaction of the unit given.  If not, and the last loop found nothing
 * pending, another one would find nothing to do.
 */
bool
delivery_finds_work(Delivery *delivery, const WorkUnit *unit)
{
	TimestampTz known = DT_NOBEGIN;
	int         gateways = 0;
	bool        found;

	foreach_ptr (const Sender, sender, delivery->senders)
	{
		if (sender->row == NULL)
			continue;
		known = Max(known, sender->row->update_time);
		gateways++;
	}
	unit->begin();
	(void) statement_run(&find_work, NULL);
	found = result_bool(0, 1) || result_int64(0, 2) != gateways ||
			(!result_is_null(0, 3) && result_time(0, 3) != known);
	SPI_freetuptable(SPI_tuptable);
	unit->commit();
	return found;
}

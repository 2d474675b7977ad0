/*
 * last_error.c
 *		The last error of a scheduler or delivery worker, in quota_worker.
 */
#include "postgres.h"

#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"

#include "common/statement.h"
#include "common/subtransaction.h"
#include "common/last_error.h"

/* Longer messages are cut, in bytes: the log has them whole. */
#define MESSAGE_MAX 2000

/* Not worth waiting for another session. */
#define LOCK_TIMEOUT "100ms"

static Statement write_error = {
	"INSERT INTO quota_manager.quota_worker (kind, last_error, last_error_time)"
	" VALUES ($1, $2, clock_timestamp())"
	" ON CONFLICT (kind) DO UPDATE SET last_error = excluded.last_error,"
	" last_error_time = excluded.last_error_time",
	{TEXTOID, TEXTOID}};

static Statement delete_error = {"DELETE FROM quota_manager.quota_worker WHERE kind = $1",
								 {TEXTOID}};

/* Writes the last error of a kind of work, in the transaction that is open. */
void
last_error_write(const char *kind, const char *message)
{
	int length = pg_mbcliplen(message, (int) strlen(message), MESSAGE_MAX);

	set_local("lock_timeout", LOCK_TIMEOUT);
	(void) statement_run(&write_error, ARGS(arg_text(kind), arg_text(pnstrdup(message, length))));
}

/* An error to be written, or, with no message, to be cleared. */
typedef struct LastError
{
	const char *kind;
	const char *message;
} LastError;

static void
keep(void *argument)
{
	const LastError *last = argument;

	if (last->message != NULL)
	{
		last_error_write(last->kind, last->message);
		return;
	}
	set_local("lock_timeout", LOCK_TIMEOUT);
	(void) statement_run(&delete_error, ARGS(arg_text(last->kind)));
}

/*
 * Writes or clears it in a transaction of its own.  That it cannot does not
 * matter; only a cancelled query and what unit->begin finds are raised.
 */
static void
try_to_keep(const WorkUnit *unit, LastError last)
{
	MemoryContext caller = CurrentMemoryContext;
	ErrorData    *error;

	unit->begin();
	error = subtransaction_try(keep, &last, CurrentMemoryContext);
	if (error != NULL && error->sqlerrcode == ERRCODE_QUERY_CANCELED)
		ReThrowError(error);
	unit->commit();
	MemoryContextSwitchTo(caller);
}

void
last_error_record(const WorkUnit *unit, const char *kind, const char *message)
{
	try_to_keep(unit, (LastError){kind, message});
}

/* Clears it: the work goes well again. */
void
last_error_clear(const WorkUnit *unit, const char *kind)
{
	try_to_keep(unit, (LastError){kind, NULL});
}

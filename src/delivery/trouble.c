/*
 * trouble.c
 *		What went wrong last with the work of a scheduler or courier.
 */
#include "postgres.h"

#include "access/xact.h"
#include "catalog/pg_type.h"
#include "mb/pg_wchar.h"
#include "utils/builtins.h"
#include "utils/resowner.h"

#include "common/statement.h"
#include "delivery/trouble.h"

/* Longer messages are cut: the log has them whole. */
#define MESSAGE_LIMIT 2000

/* It is no reason to wait for somebody. */
#define LOCK_TIMEOUT "100ms"

static Statement write_trouble = {
	"INSERT INTO quota_manager.quota_worker (kind, last_error, last_error_time)"
	" VALUES ($1, $2, clock_timestamp())"
	" ON CONFLICT (kind) DO UPDATE SET last_error = excluded.last_error,"
	" last_error_time = excluded.last_error_time",
	{TEXTOID, TEXTOID}};

static Statement clear_trouble = {"DELETE FROM quota_manager.quota_worker WHERE kind = $1",
								  {TEXTOID}};

void
trouble_write(const char *kind, const char *message)
{
	int length = pg_mbcliplen(message, (int) strlen(message), MESSAGE_LIMIT);

	set_local("lock_timeout", LOCK_TIMEOUT);
	(void) statement_run(&write_trouble, ARGS(arg_text(kind), arg_text(pnstrdup(message, length))));
}

/*
 * Erases it, in the transaction that is open.
 */
static void
trouble_erase(const char *kind)
{
	set_local("lock_timeout", LOCK_TIMEOUT);
	(void) statement_run(&clear_trouble, ARGS(arg_text(kind)));
}

/*
 * Writes or, with no message, clears it in a transaction of its own, and
 * drops an error but a cancel.
 */
static void
try_to_keep(const WorkUnit *unit, const char *kind, const char *message)
{
	MemoryContext caller = CurrentMemoryContext;
	MemoryContext transaction_context;
	ResourceOwner transaction_owner;

	unit->begin();
	transaction_context = CurrentMemoryContext;
	transaction_owner = CurrentResourceOwner;
	BeginInternalSubTransaction(NULL);
	MemoryContextSwitchTo(transaction_context);
	PG_TRY();
	{
		if (message != NULL)
			trouble_write(kind, message);
		else
			trouble_erase(kind);
		ReleaseCurrentSubTransaction();
	}
	PG_CATCH();
	{
		if (geterrcode() == ERRCODE_QUERY_CANCELED)
			PG_RE_THROW();
		MemoryContextSwitchTo(transaction_context);
		FlushErrorState();
		RollbackAndReleaseCurrentSubTransaction();
	}
	PG_END_TRY();
	MemoryContextSwitchTo(transaction_context);
	CurrentResourceOwner = transaction_owner;
	unit->commit();
	MemoryContextSwitchTo(caller);
}

void
trouble_note(const WorkUnit *unit, const char *kind, const char *message)
{
	try_to_keep(unit, kind, message);
}

void
trouble_clear(const WorkUnit *unit, const char *kind)
{
	try_to_keep(unit, kind, NULL);
}

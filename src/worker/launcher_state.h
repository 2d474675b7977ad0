/*
 * launcher_state.h
 *		Shared by the files of the launcher: its state, and the databases that it
 *		knows.
 *
 * The launcher compares what should run with what runs, each few seconds and
 * whenever a worker ends or publishes something, so a signal that is lost costs
 * time only.  It is connected to no database and reads shared catalogues only.
 */
#ifndef QM_LAUNCHER_STATE_H
#define QM_LAUNCHER_STATE_H

#include "postgres.h"

#include "storage/lock.h"
#include "utils/hsearch.h"

#include "common/backoff.h"
#include "worker/process.h"

/* A worker of a database, as its launcher sees it.  The back-off outlives time slices. */
typedef struct LaunchedWorker
{
	BackgroundWorkerHandle *handle; /* NULL: none runs */
	MonoTime                start_time;
	Backoff                 backoff;
} LaunchedWorker;

/*
 * A database is wanted at some time: at once when it is new or was asked for,
 * when something is due after its time slice, after a back-off when it cannot
 * be served.  Who has been wanted longest gets the next free slot.
 */
typedef struct Database
{
	Oid              oid; /* hash key; must be first */
	struct Database *next;
	char             name[NAMEDATALEN];
	bool             listed;      /* it is still there, and can be served */
	bool             can_connect; /* the role may connect to it */
	bool             logged;      /* the log says what keeps it from being served */
	bool             requested;   /* it was asked for while its workers were about to end */
	MonoTime         wanted;      /* since when it should have a slot */
	SchedulerEnd     end;         /* how its last scheduler ended, */
	bool             announced;   /* that the log says that it is served, */
	SliceMemory      memory;      /* and what else the log says */

	PreconditionFailure failure;
	char                missing[MISSING_SIZE];

	/* Its slot, while it has one. */
	WorkerSlot    *slot; /* NULL: none */
	MonoTime       slice_start;
	MonoTime       stop_time; /* when its workers were asked to end */
	MonoTime       slice_end; /* when deliveries are broken off; MONO_NEVER: not stopping yet */
	LaunchedWorker workers[WORKER_KINDS];

	/* Locks that the launcher watches. */
	struct
	{
		bool                 is_locked; /* somebody drops, renames, moves or copies it, or tries */
		bool                 is_confirmed; /* and workers are in the way */
		VirtualTransactionId holder;
		int                  polls; /* how often in a row this holder was seen */
	} ddl;
	struct
	{
		TimestampTz
			since;     /* since when its scheduler waits for a lock, as that says; 0: it does not */
		MonoTime seen; /* when that was seen first */
	} lock_wait;
} Database;

typedef struct LauncherState
{
	Oid           only_database; /* where not preloaded; InvalidOid: all are served */
	MemoryContext cycle_context;
	SlotTable    *table;
	dsm_handle    table_handle;
	HTAB         *databases; /* by oid, */
	Database     *first;     /* and each linked to the next */

	/* Who the workers are; InvalidOid: none are to run, and why (NULL: they are switched off). */
	Oid   role;
	char *role_problem;

	MonoTime read_databases;     /* when the list of databases is read again, */
	MonoTime read_requests;      /* and when wake-up requests are */
	MonoTime next_start;         /* when a database may get a slot, */
	Backoff  out_of_slots;       /* the server is out of worker slots */
	MonoTime short_of_slots;     /* it was so lately, until then */
	bool     logged_no_slot;     /* the log says so, */
	bool     logged_time_slices; /* and that databases share slots */
} LauncherState;

extern LauncherState launcher;

/* database_list.c: the databases, and who is next. */
extern void database_list_create(void);
extern void database_list_read(void);
extern void database_list_forget_dropped(void);
extern void database_list_retry_all(void);
extern void database_request(Oid oid);
extern bool database_is_startable(const Database *database);
extern int  database_count_overdue(Database **next);
extern int  database_count_served(void);

/* slot_control.c: the workers in slots. */
extern void slots_review(void);
extern int  slots_start_workers(long *pause);
extern int  slots_stop(int waiting, long *pause);
extern void slots_terminate_all(int code, Datum arg);

/* lock_watch.c: locks that others hold. */
extern bool ddl_locks_poll(bool *released);
extern void lock_waits_cancel(void);

#endif /* QM_LAUNCHER_STATE_H */

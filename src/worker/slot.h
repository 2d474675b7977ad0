/*
 * slot.h
 *		The table of worker slots.
 *
 * A slot is for one database and its two workers, a scheduler and a delivery
 * worker.  The launcher alone gives and frees slots and starts workers in them.
 * Workers publish there when they have something to do next; where other
 * databases wait for a slot, the launcher ends the time slice of one by that.
 *
 * The table is a segment of dynamic shared memory, of one launcher and the
 * workers that it started, so it also serves where the library is not
 * preloaded.  Each field has one writer unless it says otherwise.
 */
#ifndef QM_SLOT_H
#define QM_SLOT_H

#include "postgres.h"

#include "port/atomics.h"
#include "storage/dsm_impl.h"
#include "storage/proc.h"

#include "common/monotonic.h"
#include "worker/precondition.h"
#include "worker/worker.h"

/* How a scheduler ended. */
typedef enum SchedulerEnd
{
	END_ABNORMAL,     /* it could not say: crashed, terminated, an error */
	END_OF_SLICE,     /* for another database */
	END_PRECONDITION, /* by a precondition that failed */
} SchedulerEnd;

/* What one time slice of a database leaves for the next: what the log has said already. */
typedef struct SliceMemory
{
	Oid    extension;       /* all but the last of this one; InvalidOid: of none */
	bool   suspended;       /* that the database is a copy */
	uint32 scheduler_error; /* hash of the last error; 0: none since */
	uint32 missing_object;  /* hash of what is missing; 0: nothing */
	uint32 delivery_error;  /* like scheduler_error; written by the delivery worker */
} SliceMemory;

typedef struct WorkerSlot
{
	/* Written by the launcher while no worker runs in it. */
	Oid  database; /* InvalidOid: the slot is free */
	Oid  role;
	char database_name[NAMEDATALEN]; /* for people: a database can be renamed */

	/* Written by the launcher. */
	volatile bool stopping;         /* the time slice is over: end when this is convenient */
	volatile bool delivery_running; /* a delivery worker was started and has not ended */
	volatile bool out_of_slots;     /* the log says that none can be started */

	/* Set by one side and cleared by the other, when it has acted. */
	volatile bool delivery_broke;  /* launcher to scheduler: find out what is missing */
	volatile bool delivery_retry;  /* scheduler to launcher: that was mended */
	volatile bool delivery_wanted; /* scheduler to delivery worker: there are new grants */

	/* Written by the scheduler. */
	volatile SchedulerEnd        end;
	volatile PreconditionFailure failure;
	char                         missing[MISSING_SIZE]; /* what failed */
	volatile bool                connected;
	volatile bool                served;    /* no precondition failed */
	volatile bool                announced; /* the log says that the database is served */
	volatile bool                leaving;   /* stopping was seen: nothing is run any more */
	SliceMemory                  memory;

	/* By WorkerKind, written by the worker: its process, and when it has something to do. */
	PGPROC          *process[WORKER_KINDS];
	pg_atomic_uint64 next_due[WORKER_KINDS];
} WorkerSlot;

typedef struct SlotTable
{
	PGPROC       *launcher;
	volatile bool contended; /* a database waits for a slot */
	int           count;
	WorkerSlot    slots[FLEXIBLE_ARRAY_MEMBER];
} SlotTable;

/* Of the launcher; slot_table_create raises an error without memory. */
extern SlotTable *slot_table_create(int count, dsm_handle *handle);
extern void       slot_reset_scheduler(WorkerSlot *slot);
extern void       slot_reset_delivery(WorkerSlot *slot);

/* Of a worker. */
extern WorkerSlot *slot_attach(dsm_handle handle, int number, WorkerKind kind);
extern void        slot_publish_next(WorkerSlot *slot, WorkerKind kind, MonoTime next);
extern void        slot_wake_launcher(void);

/* Of all. */
extern void     slot_wake(WorkerSlot *slot, WorkerKind kind);
extern MonoTime slot_next_due(WorkerSlot *slot, WorkerKind kind);

#endif /* QM_SLOT_H */

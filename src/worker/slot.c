/*
 * slot.c
 *		The table of worker slots.
 */
#include "postgres.h"

#include "storage/dsm.h"
#include "storage/ipc.h"
#include "storage/latch.h"

#include "worker/slot.h"

/* Of this process. */
static SlotTable *table = NULL;

/* Makes a table of free slots, for the life of this process, the launcher. */
SlotTable *
slot_table_create(int count, dsm_handle *handle)
{
	dsm_segment *segment = dsm_create(offsetof(SlotTable, slots) + sizeof(WorkerSlot) * count, 0);

	dsm_pin_mapping(segment);
	table = dsm_segment_address(segment);
	memset(table, 0, offsetof(SlotTable, slots) + sizeof(WorkerSlot) * count);
	table->launcher = MyProc;
	table->count = count;
	for (int i = 0; i < count; i++)
	{
		for (int kind = 0; kind < WORKER_KINDS; kind++)
			pg_atomic_init_u64(&table->slots[i].next_due[kind], (uint64) MONO_PAST);
	}
	*handle = dsm_segment_handle(segment);
	return table;
}

/* Makes a slot ready for a new scheduler.  What the log has said stays. */
void
slot_reset_scheduler(WorkerSlot *slot)
{
	slot->end = END_ABNORMAL;
	slot->failure = FAILURE_NONE;
	slot->missing[0] = '\0';
	slot->connected = slot->served = slot->leaving = false;
	slot->process[WORKER_SCHEDULER] = NULL;
	pg_atomic_write_u64(&slot->next_due[WORKER_SCHEDULER], (uint64) MONO_PAST);
}

/*
 * Makes a slot ready for a new delivery worker, which has something to do until
 * it has found that there is nothing.
 */
void
slot_reset_delivery(WorkerSlot *slot)
{
	slot->process[WORKER_DELIVERY] = NULL;
	pg_atomic_write_u64(&slot->next_due[WORKER_DELIVERY], (uint64) MONO_PAST);
}

/* Exit callback: there is no latch to be set any more. */
static void
detach_process(int code, Datum arg)
{
	*(PGPROC **) DatumGetPointer(arg) = NULL;
}

/*
 * The slot with this number of the table with this handle, for a worker.  Ends
 * the process if the table is gone: so is its launcher, and another one will
 * start another worker.
 */
WorkerSlot *
slot_attach(dsm_handle handle, int number, WorkerKind kind)
{
	dsm_segment *segment = dsm_attach(handle);
	WorkerSlot  *slot;

	if (segment == NULL)
		proc_exit(0);
	dsm_pin_mapping(segment);
	table = dsm_segment_address(segment);
	slot = &table->slots[number];
	slot->process[kind] = MyProc;
	before_shmem_exit(detach_process, PointerGetDatum(&slot->process[kind]));
	return slot;
}

/*
 * Sets the latch of a process, if there is one.  It may end meanwhile: a latch
 * of somebody else may be set at any time.
 */
static void
wake_process(PGPROC *process)
{
	if (process != NULL)
		SetLatch(&process->procLatch);
}

/* Wakes the launcher of this process. */
void
slot_wake_launcher(void)
{
	wake_process(table->launcher);
}

/* Wakes a worker of a slot, if it runs. */
void
slot_wake(WorkerSlot *slot, WorkerKind kind)
{
	pg_memory_barrier();
	wake_process(slot->process[kind]);
}

/*
 * Publishes when this worker has something to do next.  The launcher may wait
 * for a worker that has nothing to do now: either it is woken, or it has said
 * that databases wait after this was published, and sees it.
 */
void
slot_publish_next(WorkerSlot *slot, WorkerKind kind, MonoTime next)
{
	pg_atomic_write_u64(&slot->next_due[kind], (uint64) next);
	pg_memory_barrier();
	if (table->contended && next > mono_now())
		slot_wake_launcher();
}

/* When a worker has something to do, as it has published. */
MonoTime
slot_next_due(WorkerSlot *slot, WorkerKind kind)
{
	return (MonoTime) pg_atomic_read_u64(&slot->next_due[kind]);
}

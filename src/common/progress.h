/*
 * progress.h
 *		Progress of the scans and deliveries of this server, for other sessions.
 *
 * Like pg_stat_progress_*, whose own kinds of commands cannot be extended.  The
 * memory is that of the preloaded library; without it nothing is reported, and
 * the functions here do nothing.
 *
 * A process has one entry for each kind of command, while one runs.  Figures
 * are written by it alone, one at a time, and read by any process: a figure costs
 * a store.
 */
#ifndef QM_PROGRESS_H
#define QM_PROGRESS_H

#include "postgres.h"

#include "port/atomics.h"

typedef enum ProgressCommand
{
	PROGRESS_SCAN,
	PROGRESS_DELIVERY,
	PROGRESS_COMMANDS
} ProgressCommand;

/* The figures of a scan; the view stat_progress_scan names them in this order. */
typedef enum ScanFigure
{
	SCAN_PHASE,
	SCAN_RUNS_TOTAL, /* strategies, or their firings */
	SCAN_RUNS_DONE,
	SCAN_STRATEGY, /* 0: several at once */
	SCAN_USERS_TOTAL,
	SCAN_USERS_DONE,
	SCAN_GRANTS_WRITTEN,
} ScanFigure;

typedef enum ScanPhase
{
	SCAN_INITIALIZING,
	SCAN_PLANNING,
	SCAN_EVALUATING,
	SCAN_WRITING,
	SCAN_RECORDING,
} ScanPhase;

/* The same of a delivery, for stat_progress_deliver. */
typedef enum DeliveryFigure
{
	DELIVERY_PHASE,
	DELIVERY_GATEWAYS_TOTAL,
	DELIVERY_GATEWAYS_SERVED,
	DELIVERY_GATEWAYS_OPEN, /* of those served */
	DELIVERY_UNSENT,
	DELIVERY_IN_FLIGHT,
	DELIVERY_COMPLETED,
	DELIVERY_FAILED,
	DELIVERY_IN_DOUBT,
	DELIVERY_DEFERRED,
} DeliveryFigure;

typedef enum DeliveryPhase
{
	DELIVERY_POLLING,
	DELIVERY_SENDING,
	DELIVERY_WAITING_FOR_LOCK,
	DELIVERY_WINDING_DOWN,
} DeliveryPhase;

#define PROGRESS_FIGURES 10

/* What others may read of a command. */
typedef struct ProgressEntry
{
	pg_atomic_uint32 pid;       /* of the process that has it; 0: it is free */
	pg_atomic_uint32 published; /* whether the rest is valid */
	ProgressCommand  command;
	Oid              database;
	Oid              role;
	int64            started;
	pg_atomic_uint64 figures[PROGRESS_FIGURES];
} ProgressEntry;

/* This process's; NULL: nothing is reported. */
extern ProgressEntry *progress_entries[PROGRESS_COMMANDS];

extern void progress_reserve(void);
extern void progress_begin(ProgressCommand command);
extern void progress_end(ProgressCommand command);

static inline void
progress_set(ProgressCommand command, int figure, int64 value)
{
	ProgressEntry *entry = progress_entries[command];

	if (entry != NULL)
		pg_atomic_write_u64(&entry->figures[figure], (uint64) value);
}

static inline void
progress_add(ProgressCommand command, int figure, int64 value)
{
	ProgressEntry *entry = progress_entries[command];

	if (entry != NULL)
		pg_atomic_write_u64(&entry->figures[figure],
							pg_atomic_read_u64(&entry->figures[figure]) + (uint64) value);
}

#endif /* QM_PROGRESS_H */

/*
 * last_error.h
 *		The last error of a scheduler or delivery worker, in quota_worker.
 *
 * For people who look there later.  Written by whoever does the work, workers
 * and procedures alike, and only after an error.
 */
#ifndef QM_LAST_ERROR_H
#define QM_LAST_ERROR_H

#include "postgres.h"

#include "common/work_unit.h"

/* Kinds of work, as worker_status names them. */
#define WORK_SCHEDULER "scheduler"
#define WORK_DELIVERY "courier"

extern void last_error_write(const char *kind, const char *message);
extern void last_error_record(const WorkUnit *unit, const char *kind, const char *message);
extern void last_error_clear(const WorkUnit *unit, const char *kind);

#endif /* QM_LAST_ERROR_H */

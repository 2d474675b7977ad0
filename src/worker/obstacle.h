/*
 * obstacle.h
 *		What keeps a scheduler from its work in a database, and how people are told.
 */
#ifndef QM_OBSTACLE_H
#define QM_OBSTACLE_H

#include "postgres.h"

#include "worker/place.h"

/*
 * Looks for what is missing in this database.  SCHEDULER_YIELDED: nothing is.
 * Otherwise ABSENT, INCOMPATIBLE, DAMAGED or FORBIDDEN, and `what` (of
 * OBSTACLE_SIZE bytes) names it.  In a transaction of a worker.
 */
extern SchedulerEnd find_obstacle(char *what);

/* Logs it, with what to do. */
extern void explain_obstacle(SchedulerEnd obstacle, const char *what, const char *database);

#endif /* QM_OBSTACLE_H */

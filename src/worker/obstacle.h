/*
 * obstacle.h
 *		What keeps a scheduler from its work in a database, and how people are told.
 */
#ifndef QM_OBSTACLE_H
#define QM_OBSTACLE_H

#include "postgres.h"

#include "worker/place.h"

extern SchedulerEnd find_obstacle(char *what);

extern void explain_obstacle(SchedulerEnd obstacle, const char *what, const char *database);

#endif /* QM_OBSTACLE_H */

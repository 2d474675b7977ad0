/*
 * precondition.h
 *		What workers need in a database.
 */
#ifndef QM_PRECONDITION_H
#define QM_PRECONDITION_H

#include "postgres.h"

/* What keeps workers from serving a database. */
typedef enum PreconditionFailure
{
	FAILURE_NONE,
	FAILURE_EXTENSION, /* the extension is not in this database */
	FAILURE_STOPPED,   /* stop_workers() was called */
	FAILURE_VERSION,   /* the extension is of a version that the library does not serve */
	FAILURE_OBJECT,    /* an object of the extension is missing */
	FAILURE_PRIVILEGE, /* the role lacks a privilege */
} PreconditionFailure;

/* Room for what is missing, or the version that there is. */
#define MISSING_SIZE 192

extern PreconditionFailure find_precondition_failure(char *missing);

extern void log_precondition_failure(PreconditionFailure failure, const char *missing,
									 const char *database);

#endif /* QM_PRECONDITION_H */

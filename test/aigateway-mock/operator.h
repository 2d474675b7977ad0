/*
 * operator.h
 *		The paths under /mock/, by which tests see and steer the mock.
 *
 * No key is asked for.  Parameters may stand in the body or in the query string, urlencoded.  README.md
 * lists the paths.
 */
#ifndef OPERATOR_H
#define OPERATOR_H

#include <stdbool.h>

#include "answer.h"

/* Whether the path is one for operator_handle(). */
extern bool operator_route(const char *path);

/* Handles a request whose body has arrived whole.  Any thread. */
extern void operator_handle(const char *method, const char *path, const struct text *query,
							const struct text *body, struct answer *answer);

#endif

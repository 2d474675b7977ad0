/*
 * operation.h
 *		A request for a path under /mock/, and how its handlers read and answer it.
 */
#ifndef OPERATION_H
#define OPERATION_H

#include <stdbool.h>
#include <stdint.h>

#include "answer.h"

struct operation
{
	const struct text *query;
	const struct text *body;
	struct answer     *answer;
};

/* Answers 400 and says what is wrong. */
extern void operation_refuse(struct operation *operation, const char *format, ...)
	__attribute__((format(printf, 2, 3)));

/* Answers that it is done. */
extern void operation_done(struct operation *operation);

/* Appends the parameter of the body or, if it is not there, of the query string; false if in neither. */
extern bool operation_parameter(const struct operation *operation, const char *name,
								struct text *value);

/* A parameter as a string that the caller frees, NULL if it is absent.  What follows a NUL is lost. */
extern char *operation_string(const struct operation *operation, const char *name);

/*
 * A whole number within bounds, or the number given when the parameter is absent; answers 400 and
 * returns false for anything else.
 */
extern bool operation_number(struct operation *operation, const char *name, uint64_t otherwise,
							 uint64_t lowest, uint64_t highest, uint64_t *number);

/* The user that a request is about; answers 400 and returns false if there is none. */
extern bool operation_user(struct operation *operation, struct text *user);

#endif

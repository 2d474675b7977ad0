/*
 * gateway.h
 *		The quota interface itself: which requests belong to it, and what becomes of one.
 */
#ifndef GATEWAY_H
#define GATEWAY_H

#include <stdbool.h>
#include <stddef.h>

#include "answer.h"
#include "options.h"

struct MHD_Connection;

/* Must be called once, before any thread serves requests. */
extern void gateway_configure(const struct options *options);

/* The dialect that is spoken. */
extern const struct dialect *gateway_dialect(void);

/* Asks for another key from now on (NULL: for none); copies it.  Any thread. */
extern void gateway_set_key(const char *key);

/* Which action this path (decoded) means; false if it is none of the interface's. */
extern bool gateway_route(const char *path, enum action *action);

/*
 * Handles one request whose body has arrived whole: checks model and key, reads parameters, lets an
 * armed fault strike, applies, and fills the answer.  Query and body are as they were sent.  A request
 * that is refused uses up no fault.  Any thread.
 */
extern void gateway_handle(struct MHD_Connection *connection, enum action action,
						   const struct text *query, const struct text *body,
						   struct answer *answer);

/* Applies a change that gateway_handle() was told to apply later (END_LATE).  Any thread. */
extern void gateway_apply(struct MHD_Connection *connection, enum action action,
						  const struct text *query, const struct text *body);

#endif

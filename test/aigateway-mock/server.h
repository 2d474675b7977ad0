/*
 * server.h
 *		HTTP: takes requests from libmicrohttpd, hands them on, and carries out the answers.
 */
#ifndef SERVER_H
#define SERVER_H

#include <stdbool.h>

#include "options.h"

/* Starts to listen and serve; false with a message on stderr if that is impossible. */
extern bool server_start(const struct options *options);

/* The port it listens on. */
extern unsigned server_port(void);

/* Ends everything that is under way; nothing is served when it returns. */
extern void server_stop(void);

#endif

/*
 * options.h
 *		The command line.
 */
#ifndef OPTIONS_H
#define OPTIONS_H

#include <stdbool.h>
#include <stddef.h>

#include "dialect.h"

/* Strings belong to the command line and live as long as the process. */
struct options
{
	const struct dialect *dialect;
	unsigned              port; /* 0: any free one */
	const char           *key;  /* NULL: none is asked for */
	const char           *admin_path;
	const char           *key_header;
	const char           *other_key;   /* NULL: nobody else has one */
	bool                  group_pools; /* higress: the version that has them */
	bool                  integers;    /* zgsm: the version that knows nothing else */
	const char           *model;       /* NULL: no header is asked for */
	unsigned              lifetime;    /* seconds */
	unsigned              threads;
	const char           *journal;      /* NULL: nothing outlives the process */
	size_t                header_limit; /* bytes */
};

/* Reads the command line; on --help or a mistake it prints and ends the process (0 or 2). */
extern void read_options(int argc, char **argv, struct options *options);

#endif

/*
 * table.h
 *		A hash table from byte strings to records, quick at millions of them.
 *
 * Open addressing with linear probing, at most two thirds full.  A record begins with a struct named
 * and holds its name's bytes too; the table points at records, owns them once they are added, and
 * frees them with free().  A zeroed struct table is an empty one.  Not safe for two threads at once: the
 * caller locks.
 */
#ifndef TABLE_H
#define TABLE_H

#include <stddef.h>
#include <stdint.h>

struct named
{
	uint64_t    hash;
	size_t      length;
	const char *bytes; /* lies in the same piece of memory as the record */
};

struct table
{
	struct named **slots;
	size_t         size; /* a power of two, or 0 */
	size_t         used;
};

/* The hash under which the other functions know these bytes. */
extern uint64_t table_hash(const char *bytes, size_t length);

/* The record of this name, NULL if there is none.  Valid until table_clear(). */
extern struct named *table_find(const struct table *table, const char *bytes, size_t length,
								uint64_t hash);

/* Adds a record whose name is not in the table yet; its hash must be set. */
extern void table_add(struct table *table, struct named *record);

/* Frees every record and the table's own memory. */
extern void table_clear(struct table *table);

#endif

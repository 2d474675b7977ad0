/*
 * table.c
 *		A hash table from byte strings to records, quick at millions of them.
 */
#include "table.h"

#include <stdlib.h>
#include <string.h>

#include "text.h"

#define SMALLEST_SIZE 1024

/*
 * Mixes eight bytes at a time by multiplication; an id of a megabyte costs well under a millisecond.
 */
uint64_t
table_hash(const char *bytes, size_t length)
{
	const uint64_t factor = UINT64_C(0x9E3779B97F4A7C15);
	uint64_t       hash = length * factor;

	while (length > 0)
	{
		size_t   step = length < sizeof(uint64_t) ? length : sizeof(uint64_t);
		uint64_t word = 0;

		memcpy(&word, bytes, step);
		hash = (hash ^ word) * factor;
		hash ^= hash >> 32;
		bytes += step;
		length -= step;
	}
	hash *= factor;
	return hash ^ (hash >> 29);
}

/*
 * Looks a name up; see the header.
 */
struct named *
table_find(const struct table *table, const char *bytes, size_t length, uint64_t hash)
{
	size_t at;

	if (table->size == 0)
		return NULL;
	for (at = hash & (table->size - 1); table->slots[at] != NULL; at = (at + 1) & (table->size - 1))
	{
		struct named *record = table->slots[at];

		if (record->hash == hash && record->length == length &&
			memcmp(record->bytes, bytes, length) == 0)
			return record;
	}
	return NULL;
}

/*
 * Puts a record into the first free slot of its chain.
 */
static void
place(struct named **slots, size_t size, struct named *record)
{
	size_t at = record->hash & (size - 1);

	while (slots[at] != NULL)
		at = (at + 1) & (size - 1);
	slots[at] = record;
}

/*
 * Adds a new record, growing the table when it is two thirds full.
 */
void
table_add(struct table *table, struct named *record)
{
	if (table->used + 1 > table->size / 3 * 2)
	{
		size_t         size = table->size > 0 ? table->size * 2 : SMALLEST_SIZE;
		struct named **slots = need_memory(size * sizeof(*slots));

		memset(slots, 0, size * sizeof(*slots));
		for (size_t i = 0; i < table->size; i++)
		{
			if (table->slots[i] != NULL)
				place(slots, size, table->slots[i]);
		}
		free(table->slots);
		table->slots = slots;
		table->size = size;
	}
	place(table->slots, table->size, record);
	table->used++;
}

/*
 * Frees everything.
 */
void
table_clear(struct table *table)
{
	for (size_t i = 0; i < table->size; i++)
		free(table->slots[i]);
	free(table->slots);
	memset(table, 0, sizeof(*table));
}

/*
 * candidates.c
 *		The search for pending grants of one gateway: how far it is, and what it
 *		has found.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/memutils.h"

#include "delivery/candidates.h"

/*
 * Prepares a search, which is at its end until it is restarted.
 */
void
candidates_init(CandidateSearch *search, MemoryContext memory)
{
	search->memory =
		AllocSetContextCreate(memory, "quota_manager candidates", ALLOCSET_DEFAULT_SIZES);
	search->rest_until = MONO_PAST;
	candidates_restart(search);
	search->exhausted = true;
}

/*
 * Drops the candidates and begins the search anew.
 */
void
candidates_restart(CandidateSearch *search)
{
	MemoryContextReset(search->memory);
	search->candidates = NULL;
	search->count = 0;
	search->next = 0;
	search->searched_id = PG_INT64_MIN;
	search->exhausted = false;
	search->restart_time = MONO_NEVER;
}

/*
 * How many candidates are left to be claimed.
 */
int
candidates_left(const CandidateSearch *search)
{
	return search->count - search->next;
}

/*
 * The user of one of the candidates that are left, by chance; there must be one.
 */
const text *
candidates_any_user(const CandidateSearch *search)
{
	uint64 offset = pg_prng_uint64_range(&pg_global_prng_state, 0, candidates_left(search) - 1);

	return search->candidates[search->next + (int) offset].user_id;
}

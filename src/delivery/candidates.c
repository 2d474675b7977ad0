/*
 * candidates.c
 *		The search for pending grants of one gateway: how far it is, and what it
 *		has found.
 */
#include "postgres.h"

#include "utils/memutils.h"

#include "delivery/candidates.h"
#include "delivery/timing.h"

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
	search->restart_time = mono_in_ms(SEARCH_AGAIN_MS);
}

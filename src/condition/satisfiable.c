/*
 * satisfiable.c
 *		Is there a user of whom formulas hold?
 *
 * A search in the manner of Davis, Putnam, Logemann and Loveland.  Of each fact
 * it knows the regions that are still allowed.  What a formula requires narrows
 * them; where nothing follows any more, a call of which both is possible is
 * decided, and if that leads to nothing, its opposite.  A call is one set of
 * regions of one fact: once all formulas hold whatever regions are picked, any
 * pick is a user.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/memutils.h"

#include "condition/satisfiable.h"

typedef enum Truth
{
	TRUTH_NO,   /* of no user that is still allowed */
	TRUTH_YES,  /* of all of them */
	TRUTH_OPEN, /* not known to be either */
} Truth;

/* The regions of a fact before they were narrowed. */
typedef struct Narrowing
{
	int     fact;
	uint64 *allowed;
} Narrowing;

typedef struct Decision
{
	Requirement call;
	bool        is_opposite; /* the other one has been tried */
	int         narrowings;  /* before it */
} Decision;

typedef struct Search
{
	const FactTable *table;
	uint64         **allowed; /* per fact */
	Narrowing       *narrowings;
	int              narrowing_count;
	int              narrowing_size;
	Decision        *decisions;
	int              decision_count;
	int              decision_size;
	int64            steps; /* left */
	bool             has_narrowed;
} Search;

/* Whether a call holds within the allowed regions. */
static Truth
call_truth(Search *search, const Formula *call, bool negated)
{
	const uint64 *allowed = search->allowed[call->fact];
	int           words = search->table->facts[call->fact].words;
	uint64        inside = 0;
	uint64        outside = 0;

	search->steps -= words / 4;
	for (int word = 0; word < words; word++)
	{
		inside |= allowed[word] & call->regions[word];
		outside |= allowed[word] & ~call->regions[word];
	}
	if (inside == 0)
		return negated ? TRUTH_YES : TRUTH_NO;
	if (outside == 0)
		return negated ? TRUTH_NO : TRUTH_YES;
	return TRUTH_OPEN;
}

/* Whether a formula holds, as far as its parts show it. */
static Truth
truth(Search *search, const Formula *formula, bool negated)
{
	Truth decisive;
	Truth result;

	search->steps--;
	if (formula->kind == FORMULA_CALL)
		return call_truth(search, formula, negated);
	check_stack_depth();
	CHECK_FOR_INTERRUPTS();
	decisive = (formula->kind == FORMULA_ALL) != negated ? TRUTH_NO : TRUTH_YES;
	result = decisive == TRUTH_NO ? TRUTH_YES : TRUTH_NO;
	for (const Formula *part = formula->first; part; part = part->next)
	{
		Truth of_part = truth(search, part, negated);

		if (of_part == decisive)
			return decisive;
		if (of_part == TRUTH_OPEN)
			result = TRUTH_OPEN;
	}
	return result;
}

/* Allows only the regions in which a call holds; false: there are none. */
static bool
narrow(Search *search, const Formula *call, bool negated)
{
	Truth         present = call_truth(search, call, negated);
	int           words = search->table->facts[call->fact].words;
	const uint64 *before = search->allowed[call->fact];
	uint64       *after;

	if (present != TRUTH_OPEN)
		return present == TRUTH_YES;
	if (search->narrowing_count == search->narrowing_size)
	{
		search->narrowing_size *= 2;
		search->narrowings =
			repalloc_huge(search->narrowings, sizeof(Narrowing) * search->narrowing_size);
	}
	search->narrowings[search->narrowing_count].fact = call->fact;
	search->narrowings[search->narrowing_count++].allowed = search->allowed[call->fact];
	after = palloc(sizeof(uint64) * words);
	for (int word = 0; word < words; word++)
		after[word] = before[word] & (negated ? ~call->regions[word] : call->regions[word]);
	search->allowed[call->fact] = after;
	search->has_narrowed = true;
	return true;
}

/* Takes back narrowings until so many are left. */
static void
take_back(Search *search, int count)
{
	while (search->narrowing_count > count)
	{
		Narrowing *last = &search->narrowings[--search->narrowing_count];

		pfree(search->allowed[last->fact]);
		search->allowed[last->fact] = last->allowed;
	}
}

/* Narrows to what a formula requires; false: it cannot hold. */
static bool
require(Search *search, const Formula *formula, bool negated)
{
	const Formula *only = NULL;

	search->steps--;
	if (formula->kind == FORMULA_CALL)
		return narrow(search, formula, negated);
	check_stack_depth();
	if ((formula->kind == FORMULA_ALL) != negated)
	{
		for (const Formula *part = formula->first; part; part = part->next)
			if (!require(search, part, negated))
				return false;
		return true;
	}
	for (const Formula *part = formula->first; part; part = part->next)
	{
		if (truth(search, part, negated) == TRUTH_NO)
			continue;
		/* Of two that can hold, neither has to. */
		if (only != NULL)
			return true;
		only = part;
	}
	return only != NULL && require(search, only, negated);
}

/* Narrows until nothing more follows; false: a formula cannot hold. */
static bool
propagate(Search *search, const Requirement *requirements, int count)
{
	do
	{
		search->has_narrowed = false;
		for (int i = 0; i < count; i++)
			if (!require(search, requirements[i].formula, requirements[i].negated))
				return false;
	} while (search->has_narrowed && search->steps > 0);
	return true;
}

/* A call of an open formula that is open itself. */
static const Formula *
find_open_call(Search *search, const Formula *formula, bool negated)
{
	check_stack_depth();
	while (formula->kind != FORMULA_CALL)
	{
		const Formula *part = formula->first;

		while (truth(search, part, negated) != TRUTH_OPEN)
			part = part->next;
		formula = part;
	}
	return formula;
}

/* Decides a call. */
static void
decide(Search *search, const Formula *call, bool negated)
{
	Decision *decision;

	if (search->decision_count == search->decision_size)
	{
		search->decision_size *= 2;
		search->decisions =
			repalloc_huge(search->decisions, sizeof(Decision) * search->decision_size);
	}
	decision = &search->decisions[search->decision_count++];
	decision->call.formula = call;
	decision->call.negated = negated;
	decision->is_opposite = false;
	decision->narrowings = search->narrowing_count;
	narrow(search, call, negated);
}

/* Replaces the last decision whose opposite was not tried by that; false: there is none. */
static bool
decide_opposite(Search *search)
{
	while (search->decision_count > 0)
	{
		Decision *last = &search->decisions[search->decision_count - 1];

		take_back(search, last->narrowings);
		if (!last->is_opposite)
		{
			last->is_opposite = true;
			narrow(search, last->call.formula, !last->call.negated);
			return true;
		}
		search->decision_count--;
	}
	return false;
}

/* Searches until it is known, or the steps are used up. */
static Answer
run(Search *search, const Requirement *requirements, int count)
{
	while (search->steps > 0)
	{
		int open = 0;

		CHECK_FOR_INTERRUPTS();
		if (!propagate(search, requirements, count))
		{
			if (!decide_opposite(search))
				return ANSWER_NO;
			continue;
		}
		while (open < count &&
			   truth(search, requirements[open].formula, requirements[open].negated) == TRUTH_YES)
			open++;
		if (open == count)
			return ANSWER_YES;
		if (truth(search, requirements[open].formula, requirements[open].negated) == TRUTH_OPEN)
			decide(search,
				   find_open_call(search, requirements[open].formula, requirements[open].negated),
				   requirements[open].negated);
	}
	return ANSWER_UNKNOWN;
}

/* Is there a user that meets all requirements? */
Answer
satisfiable(const FactTable *table, const Requirement *requirements, int count, Budget *budget)
{
	MemoryContext memory =
		AllocSetContextCreate(CurrentMemoryContext, "search for a user", ALLOCSET_SMALL_SIZES);
	MemoryContext caller = MemoryContextSwitchTo(memory);
	int64         steps = Min(budget->each, budget->total);
	Search        search = {.table = table, .steps = steps};
	Answer        answer;

	search.narrowing_size = search.decision_size = 16;
	search.narrowings = palloc(sizeof(Narrowing) * search.narrowing_size);
	search.decisions = palloc(sizeof(Decision) * search.decision_size);
	search.allowed = palloc(sizeof(uint64 *) * Max(table->count, 1));
	search.steps -= table->count / 4;
	for (int fact = 0; fact < table->count; fact++)
		search.allowed[fact] = table->facts[fact].possible;
	answer = run(&search, requirements, count);
	budget->total -= steps - search.steps;
	MemoryContextSwitchTo(caller);
	MemoryContextDelete(memory);
	return answer;
}

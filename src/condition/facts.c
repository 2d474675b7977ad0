/*
 * facts.c
 *		What calls ask -> facts, and the regions of their values.
 *
 * Bounds cut an ordered fact (a level, a time, a balance) into intervals: region
 * i is between bound i - 1 and bound i.  Texts are regions of their own, and all
 * other texts are one more.
 */
#include "postgres.h"

#include "fmgr.h"
#include "lib/qunique.h"
#include "miscadmin.h"
#include "utils/fmgrprotos.h"

#include "condition/facts.h"

/* Memory for all sets of regions. */
#define MAX_WORDS (INT64CONST(1024) * 1024)

#define WORDS_FOR(regions) (((regions) + 63) / 64)

/* Questions about one fact. */
typedef struct QuestionGroup
{
	Question *questions;
	int       count;
} QuestionGroup;

static void
add_regions(uint64 *set, int from, int to)
{
	for (int region = from; region <= to; region++)
		set[region / 64] |= UINT64CONST(1) << (region % 64);
}

/* The order of questions: those about one fact stand together. */
static int
compare_facts(const void *a, const void *b)
{
	const Question *left = a;
	const Question *right = b;

	if (left->kind != right->kind)
		return left->kind < right->kind ? -1 : 1;
	return strcmp(left->key, right->key);
}

static int
compare_bounds(const void *a, const void *b)
{
	const Question *left = a;
	const Question *right = b;

	if (left->kind == FACT_BALANCE)
		return DatumGetInt32(DirectFunctionCall2(numeric_cmp, left->amount, right->amount));
	return left->bound < right->bound ? -1 : left->bound > right->bound ? 1 : 0;
}

static int
compare_texts(const void *a, const void *b)
{
	return strcmp(*(const char *const *) a, *(const char *const *) b);
}

/* Makes a fact of so many regions, all possible. */
static void
init_fact(Fact *fact, const Question *question, int regions)
{
	fact->kind = question->kind;
	fact->key = question->key;
	fact->words = WORDS_FOR(regions);
	fact->possible = palloc0(sizeof(uint64) * fact->words);
	add_regions(fact->possible, 0, regions - 1);
}

/* The set of regions of a call: from one to another, or all others. */
static void
set_regions(const Question *question, const Fact *fact, int from, int to)
{
	Formula *call = question->call;

	call->regions = palloc0(sizeof(uint64) * fact->words);
	add_regions(call->regions, from, to);
	/* The negation of a balance's bound does not hold where the balance is missing. */
	if (call->negated && fact->kind != FACT_BALANCE)
		for (int word = 0; word < fact->words; word++)
			call->regions[word] = fact->possible[word] & ~call->regions[word];
}

/* Levels have 32 bits: takes intervals out that no integer of them is in. */
static void
limit_levels(Fact *fact, const Question *bounds, int count)
{
	for (int region = 0; region <= count; region++)
	{
		bool starts_above = region > 0 && bounds[region - 1].bound > PG_INT32_MAX;
		bool ends_below = region < count && bounds[region].bound <= PG_INT32_MIN;

		if (starts_above || ends_below)
			fact->possible[region / 64] &= ~(UINT64CONST(1) << (region % 64));
	}
}

/* An ordered fact. */
static bool
make_ordered(Fact *fact, QuestionGroup *group, int64 *words)
{
	Question *bounds = palloc(sizeof(Question) * group->count);
	bool      can_miss = group->questions->kind != FACT_VIP;
	int       count;

	memcpy(bounds, group->questions, sizeof(Question) * group->count);
	qsort(bounds, group->count, sizeof(Question), compare_bounds);
	count = (int) qunique(bounds, group->count, sizeof(Question), compare_bounds);
	*words += (int64) WORDS_FOR(count + 2) * (group->count + 1);
	if (*words > MAX_WORDS)
		return false;
	init_fact(fact, group->questions, count + 1 + (can_miss ? 1 : 0));
	if (fact->kind == FACT_VIP)
		limit_levels(fact, bounds, count);
	for (int i = 0; i < group->count; i++)
	{
		Question *question = &group->questions[i];
		Question *found = bsearch(question, bounds, count, sizeof(Question), compare_bounds);
		int       rank = (int) (found - bounds);
		bool      holds_below = question->kind == FACT_REGISTER_TIME ||
						   (question->kind == FACT_BALANCE && !question->call->negated);

		/* Above: at least the level, after the time, more than the amount. */
		if (holds_below)
			set_regions(question, fact, 0, rank);
		else
			set_regions(question, fact, rank + 1, count);
	}
	return true;
}

/* A fact that is one text out of any. */
static bool
make_texts(Fact *fact, QuestionGroup *group, int64 *words)
{
	const char **texts;
	int          count = 0;

	for (int i = 0; i < group->count; i++)
		count += group->questions[i].call->node->count;
	texts = palloc(sizeof(char *) * count);
	count = 0;
	for (int i = 0; i < group->count; i++)
		for (ConditionArgument *text = group->questions[i].call->node->arguments; text;
			 text = text->next)
			texts[count++] = text->value;
	qsort(texts, count, sizeof(char *), compare_texts);
	count = (int) qunique(texts, count, sizeof(char *), compare_texts);
	*words += (int64) WORDS_FOR(count + 1) * (group->count + 1);
	if (*words > MAX_WORDS)
		return false;
	init_fact(fact, group->questions, count + 1);
	for (int i = 0; i < group->count; i++)
	{
		Formula *call = group->questions[i].call;

		call->regions = palloc0(sizeof(uint64) * fact->words);
		for (ConditionArgument *text = call->node->arguments; text; text = text->next)
		{
			const char **found = bsearch(&text->value, texts, count, sizeof(char *), compare_texts);

			add_regions(call->regions, (int) (found - texts), (int) (found - texts));
		}
		if (call->negated)
			for (int word = 0; word < fact->words; word++)
				call->regions[word] = fact->possible[word] & ~call->regions[word];
	}
	return true;
}

/* A fact that is true or false: region 1 or 0. */
static bool
make_boolean(Fact *fact, QuestionGroup *group, int64 *words)
{
	*words += group->count + 1;
	if (*words > MAX_WORDS)
		return false;
	init_fact(fact, group->questions, 2);
	if (fact->kind == FACT_STAR && !group->questions->is_possible)
		fact->possible[0] = 1;
	for (int i = 0; i < group->count; i++)
		set_regions(&group->questions[i], fact, 1, 1);
	return true;
}

/* What is the same for all users: one region. */
static bool
make_constant(Fact *fact, QuestionGroup *group, int64 *words)
{
	*words += group->count + 1;
	if (*words > MAX_WORDS)
		return false;
	init_fact(fact, group->questions, 1);
	for (int i = 0; i < group->count; i++)
		set_regions(&group->questions[i], fact, 0, group->questions[i].truth ? 0 : -1);
	return true;
}

static bool
make_fact(Fact *fact, QuestionGroup *group, int64 *words)
{
	switch (group->questions->kind)
	{
		case FACT_CONSTANT:
			return make_constant(fact, group, words);
		case FACT_VIP:
		case FACT_REGISTER_TIME:
		case FACT_ACCESS_TIME:
		case FACT_BALANCE:
			return make_ordered(fact, group, words);
		case FACT_USER:
		case FACT_ORG:
			return make_texts(fact, group, words);
		case FACT_STAR:
		case FACT_OTHER:
			return make_boolean(fact, group, words);
	}
	return false;
}

/*
 * Makes the facts that questions ask about, and the regions of their calls.  NULL:
 * these would take too much memory.
 */
FactTable *
facts_make(Question *questions, int count)
{
	FactTable *table = palloc0(sizeof(FactTable));
	int64      words = 0;

	qsort(questions, count, sizeof(Question), compare_facts);
	table->facts = palloc(sizeof(Fact) * Max(count, 1));
	for (int start = 0; start < count;)
	{
		QuestionGroup group = {&questions[start], 0};

		CHECK_FOR_INTERRUPTS();
		while (start < count && compare_facts(&group.questions[0], &questions[start]) == 0)
		{
			questions[start].call->fact = table->count;
			group.count++;
			start++;
		}
		if (!make_fact(&table->facts[table->count++], &group, &words))
			return NULL;
	}
	return table;
}

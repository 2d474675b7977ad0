/*
 * reason.c
 *		Why no user meets some formulas, in words.
 *
 * That no user meets A, B and not C is said as: who meets A and B meets C as
 * well.  What is not needed for it is left out.
 */
#include "postgres.h"

#include "lib/stringinfo.h"
#include "mb/pg_wchar.h"
#include "miscadmin.h"

#include "condition/names.h"
#include "condition/reason.h"

/* Formulas among which a conflict is searched for; of more, none is named. */
#define MAX_REQUIREMENTS 32

/* How much of a formula a message repeats, in bytes. */
#define MAX_TEXT_BYTES 160

/* A formula as it would be written, clipped. */
char *
formula_text(const Formula *formula)
{
	ConditionError ignored = {0};
	char          *text = condition_print(formula->node, &ignored);
	int            length;

	if (text == NULL)
		return "...";
	if (formula->negated)
		text = psprintf("not(%s)", text);
	length = (int) strlen(text);
	if (length <= MAX_TEXT_BYTES)
		return text;
	return psprintf("%s...", pnstrdup(text, pg_mbcliplen(text, length, MAX_TEXT_BYTES)));
}

/* Adds a requirement, taken apart into those it consists of; false: they are too many. */
static bool
add_parts(Conflict *conflict, const Formula *formula, bool negated)
{
	check_stack_depth();
	if (formula->kind == (negated ? FORMULA_ANY : FORMULA_ALL))
	{
		for (const Formula *part = formula->first; part; part = part->next)
			if (!add_parts(conflict, part, negated))
				return false;
		return true;
	}
	if (conflict->count == MAX_REQUIREMENTS)
		return false;
	conflict->requirements[conflict->count++] = (Requirement){formula, negated};
	return true;
}

/* True if no user meets all but one of the requirements. */
static bool
holds_without(const FactTable *table, const Conflict *conflict, int left_out, Budget *budget)
{
	Requirement rest[MAX_REQUIREMENTS];
	int         count = 0;

	for (int i = 0; i < conflict->count; i++)
		if (i != left_out)
			rest[count++] = conflict->requirements[i];
	return satisfiable(table, rest, count, budget) == ANSWER_NO;
}

/*
 * Finds a conflict within requirements that no user meets.  False: they are too
 * many to name one.
 */
bool
conflict_find(const FactTable *table, const Requirement *requirements, int count, Budget *budget,
			  Conflict *conflict)
{
	conflict->requirements = palloc(sizeof(Requirement) * MAX_REQUIREMENTS);
	conflict->count = 0;
	for (int i = 0; i < count; i++)
		if (!add_parts(conflict, requirements[i].formula, requirements[i].negated))
			return false;
	for (int i = conflict->count - 1; i >= 0 && conflict->count > 1; i--)
	{
		if (!holds_without(table, conflict, i, budget))
			continue;
		conflict->count--;
		memmove(&conflict->requirements[i], &conflict->requirements[i + 1],
				sizeof(Requirement) * (conflict->count - i));
	}
	return true;
}

/* What is so of a fact, whatever a condition says; NULL: nothing. */
static const char *
nature_of(const Fact *fact)
{
	if (fact->kind == FACT_VIP)
		return "VIP levels are from -2147483648 to 2147483647";
	if (fact->kind == FACT_STAR)
		return fact->key[0] == '\0'
				   ? "an empty project matches nobody"
				   : "a project in a list has no comma, and no white space around it";
	return NULL;
}

/* Appends the formulas that are required, or those of which the negation is. */
static int
append_formulas(StringInfo out, const Conflict *conflict, bool negated, const char *last)
{
	int count = 0;
	int done = 0;

	for (int i = 0; i < conflict->count; i++)
		if (conflict->requirements[i].negated == negated)
			count++;
	for (int i = 0; i < conflict->count; i++)
	{
		if (conflict->requirements[i].negated != negated)
			continue;
		if (done > 0)
			appendStringInfoString(out, done == count - 1 ? last : ", ");
		appendStringInfoString(out, formula_text(conflict->requirements[i].formula));
		done++;
	}
	return count;
}

/* Appends that two models have one balance, where a conflict is of such. */
static void
append_shared_balance(StringInfo out, const FactTable *table, const Conflict *conflict)
{
	for (int i = 0; i < conflict->count; i++)
		for (int j = 0; j < i; j++)
		{
			const Formula *a = conflict->requirements[j].formula;
			const Formula *b = conflict->requirements[i].formula;

			if (a->kind != FORMULA_CALL || b->kind != FORMULA_CALL || a->fact != b->fact ||
				table->facts[a->fact].kind != FACT_BALANCE ||
				strcmp(a->node->arguments->value, b->node->arguments->value) == 0)
				continue;
			appendStringInfo(out, " Gateway \"%s\" serves both models: it is one balance.",
							 table->facts[a->fact].key);
			return;
		}
}

/* Describes a conflict of one formula. */
static char *
describe_one(const FactTable *table, const Requirement *only, Budget *budget)
{
	const Formula *formula = only->formula;
	Requirement    first = {formula->first, only->negated};
	Conflict       conflict;
	const char    *nature;
	char          *text;

	if (formula->kind == FORMULA_CALL)
	{
		nature = nature_of(&table->facts[formula->fact]);
		return psprintf(only->negated ? "Every user meets %s%s%s." : "No user meets %s%s%s.",
						formula_text(formula), nature ? ": " : "", nature ? nature : "");
	}
	/* Each part is a conflict by itself. */
	check_stack_depth();
	if (!conflict_find(table, &first, 1, budget, &conflict))
		return NULL;
	text = conflict_describe(table, &conflict, budget);
	return text ? psprintf("%s %s", text,
						   only->negated ? "Its other parts hold for everybody, too."
										 : "Its other parts cannot hold either.")
				: NULL;
}

/* Describes a conflict in a sentence or two; NULL: it cannot be said. */
char *
conflict_describe(const FactTable *table, const Conflict *conflict, Budget *budget)
{
	StringInfoData required;
	StringInfoData negated;
	StringInfoData out;
	int            required_count;
	int            negated_count;

	if (conflict->count == 1)
		return describe_one(table, &conflict->requirements[0], budget);
	initStringInfo(&required);
	initStringInfo(&negated);
	initStringInfo(&out);
	required_count = append_formulas(&required, conflict, false, " and ");
	negated_count = append_formulas(&negated, conflict, true, " or ");
	if (negated_count == 0)
		appendStringInfo(&out, "No user meets %s %s.", required_count == 2 ? "both" : "all of",
						 required.data);
	else if (required_count == 0)
		appendStringInfo(&out, "Every user meets %s.", negated.data);
	else if (strcmp(required.data, negated.data) == 0)
		appendStringInfo(&out, "%s is there twice.", required.data);
	else
		appendStringInfo(&out, "Who meets %s meets %s as well.", required.data, negated.data);
	append_shared_balance(&out, table, conflict);
	return out.data;
}

/* True if a requirement is a plain call of one of the functions that take a list of texts. */
static bool
is_text_call(const Requirement *requirement)
{
	const Formula *formula = requirement->formula;

	return !requirement->negated && !formula->negated && formula->kind == FORMULA_CALL &&
		   (strcmp(formula->node->name, "match-user") == 0 ||
			strcmp(formula->node->name, "belong-to") == 0);
}

/* What to write instead of a conflict. */
char *
conflict_hint(const Conflict *conflict)
{
	const ConditionNode *a;
	const ConditionNode *b;

	if (conflict->count < 2)
		return "Correct it.";
	if (conflict->count > 2 || !is_text_call(&conflict->requirements[0]) ||
		!is_text_call(&conflict->requirements[1]))
		return "Correct one of them, or join them with or() if one of them is enough.";
	a = conflict->requirements[0].formula->node;
	b = conflict->requirements[1].formula->node;
	return psprintf("Write %s(\"%s\", \"%s\") for users of either.", a->name, a->arguments->value,
					b->arguments->value);
}

/*
 * finding.c
 *		What is probably wrong with a condition that can be evaluated.
 *
 * Every finding is proved: that there is no user of some kind.  What cannot be
 * decided within the budget is not said.
 */
#include "postgres.h"

#include "miscadmin.h"

#include "condition/finding.h"
#include "condition/formulas.h"
#include "condition/full_width.h"
#include "condition/reason.h"

/* Findings about one condition; there is no use in more. */
#define MAX_FINDINGS 8

#define PART_HINT "Correct it, or leave it out: without it the condition means the same."

/* An examination of one condition. */
typedef struct Examination
{
	const FactTable *table;
	Budget          *budget;
	List            *findings;
	Requirement     *given; /* what holds wherever the part in question counts */
	int              given_count;
	int              given_size;
} Examination;

static void
add_finding(Examination *examination, const char *problem, const char *severity, char *message,
			char *detail, char *hint)
{
	Finding *finding = palloc(sizeof(Finding));

	*finding = (Finding){problem, severity, message, detail, hint};
	examination->findings = lappend(examination->findings, finding);
}

static void
push_given(Examination *examination, const Formula *formula, bool negated)
{
	if (examination->given_count == examination->given_size)
	{
		examination->given_size = examination->given_size * 2 + 16;
		examination->given =
			examination->given
				? repalloc(examination->given, sizeof(Requirement) * examination->given_size)
				: palloc(sizeof(Requirement) * examination->given_size);
	}
	examination->given[examination->given_count++] = (Requirement){formula, negated};
}

/* True if no user meets all that is given. */
static bool
is_conflict(Examination *examination)
{
	return satisfiable(examination->table, examination->given, examination->given_count,
					   examination->budget) == ANSWER_NO;
}

/* Why no user meets all that is given, and what to write instead. */
static char *
explain_conflict(Examination *examination, char **hint)
{
	Conflict conflict;
	char    *text = NULL;

	*hint = "Correct it.";
	if (conflict_find(examination->table, examination->given, examination->given_count,
					  examination->budget, &conflict))
	{
		*hint = conflict_hint(&conflict);
		text = conflict_describe(examination->table, &conflict, examination->budget);
	}
	return text ? text : "It takes many of its parts to show it.";
}

/* True if all calls are true() and false(). */
static bool
is_constant(const Examination *examination, const Formula *formula)
{
	check_stack_depth();
	if (formula->kind == FORMULA_CALL)
		return examination->table->facts[formula->fact].kind == FACT_CONSTANT;
	for (const Formula *part = formula->first; part; part = part->next)
		if (!is_constant(examination, part))
			return false;
	return true;
}

/* Gives all parts that count but one. */
static void
push_others(Examination *examination, const Formula **parts, int count, int left_out, bool negated)
{
	examination->budget->total -= count / 4;
	for (int i = 0; i < count; i++)
		if (i != left_out && parts[i] != NULL)
			push_given(examination, parts[i], negated);
}

/*
 * Finds parts that change nothing, and takes them out of the array: from the last
 * on, so that of two that mean the same the second is found.  A part of ALL
 * changes nothing if the others imply it, a part of ANY if it implies the others.
 */
static void
find_superfluous(Examination *examination, const Formula *formula, const Formula **parts)
{
	bool  is_all = formula->kind == FORMULA_ALL;
	int   given = examination->given_count;
	char *hint;

	for (int i = formula->count - 1; i >= 0 && examination->budget->total > 0 &&
									 list_length(examination->findings) < MAX_FINDINGS;
		 i--)
	{
		if (parts[i] == NULL)
			continue;
		push_others(examination, parts, formula->count, i, !is_all);
		push_given(examination, parts[i], is_all);
		if (is_conflict(examination))
		{
			add_finding(
				examination, "superfluous_part", SEVERITY_NOTICE,
				psprintf("a part of the condition changes nothing: %s", formula_text(parts[i])),
				explain_conflict(examination, &hint), PART_HINT);
			parts[i] = NULL;
		}
		examination->given_count = given;
	}
}

/* Finds parts of ANY that can never hold, and takes them out of the array. */
static void
find_dead(Examination *examination, const Formula *formula, const Formula **parts)
{
	char *hint;

	for (int i = 0; i < formula->count && list_length(examination->findings) < MAX_FINDINGS; i++)
	{
		push_given(examination, parts[i], false);
		if (is_conflict(examination))
		{
			add_finding(
				examination, "dead_part",
				is_constant(examination, parts[i]) ? SEVERITY_NOTICE : SEVERITY_WARNING,
				psprintf("a part of the condition can never hold: %s", formula_text(parts[i])),
				explain_conflict(examination, &hint), PART_HINT);
			parts[i] = NULL;
		}
		examination->given_count--;
	}
}

/* Examines the parts of a formula, where what is given holds as well. */
static void
examine_parts(Examination *examination, const Formula *formula)
{
	const Formula **parts;
	int             count = 0;
	int             given = examination->given_count;

	check_stack_depth();
	if (formula->kind == FORMULA_CALL || examination->budget->total <= 0)
		return;
	parts = palloc(sizeof(Formula *) * formula->count);
	for (const Formula *part = formula->first; part; part = part->next)
		parts[count++] = part;
	if (formula->kind == FORMULA_ANY)
		find_dead(examination, formula, parts);
	find_superfluous(examination, formula, parts);
	for (int i = 0; i < count; i++)
	{
		if (parts[i] == NULL || parts[i]->kind == FORMULA_CALL)
			continue;
		if (formula->kind == FORMULA_ALL)
			push_others(examination, parts, count, i, false);
		examine_parts(examination, parts[i]);
		examination->given_count = given;
	}
	pfree(parts);
}

/* Finds whether a condition can hold and can fail; true: it can do both, as far as is known. */
static bool
examine_whole(Examination *examination, const Formula *formula)
{
	char *hint;
	char *detail;

	push_given(examination, formula, false);
	if (is_conflict(examination))
	{
		detail = explain_conflict(examination, &hint);
		add_finding(examination, "never_holds",
					is_constant(examination, formula) ? SEVERITY_NOTICE : SEVERITY_ERROR,
					"the condition can never hold", detail, hint);
		return false;
	}
	examination->given[0].negated = true;
	if (is_conflict(examination))
	{
		if (!is_constant(examination, formula))
			add_finding(examination, "always_holds", SEVERITY_WARNING,
						"the condition holds for everybody", explain_conflict(examination, &hint),
						"Write true() if everybody is meant.");
		return false;
	}
	examination->given_count = 0;
	return true;
}

/* What to write instead of a full-width sign in a text. */
static char *
replacement_hint(const FullWidthSign *sign)
{
	switch (sign->meant[0])
	{
		case ',':
			return "Where several are meant, write each in quotes of its own, with , between them.";
		case ' ':
			return "Write an ordinary blank if that is meant.";
		default:
			return psprintf("Write %s if that is meant.", sign->meant);
	}
}

/* Finds full-width signs in the texts of a condition. */
static void
find_full_width(Examination *examination, const ConditionNode *node)
{
	check_stack_depth();
	for (const ConditionNode *child = node->first; child; child = child->next)
		find_full_width(examination, child);
	for (const ConditionArgument *text = node->arguments; text; text = text->next)
	{
		const FullWidthSign *sign = text->kind == ARGUMENT_TEXT ? full_width_in(text->value) : NULL;

		if (sign == NULL || list_length(examination->findings) >= MAX_FINDINGS)
			continue;
		add_finding(examination, "full_width", sign->is_usual ? SEVERITY_NOTICE : SEVERITY_WARNING,
					psprintf("a text of %s has a %s \"%s\" (%s): \"%s\"", node->name, sign->name,
							 sign->bytes, sign->code, text->value),
					"It is a part of the text, which is compared as it is.",
					replacement_hint(sign));
	}
}

/*
 * Finds what is probably wrong with a condition: a list of Finding.  Names and
 * types need not be right.
 */
List *
condition_findings(const ConditionNode *node, const ModelTable *models, Budget *budget)
{
	Examination examination = {.budget = budget};
	Formula    *formula;

	find_full_width(&examination, node);
	examination.table = formulas_build(&node, 1, models, &formula);
	if (examination.table != NULL && examine_whole(&examination, formula))
		examine_parts(&examination, formula);
	return examination.findings;
}

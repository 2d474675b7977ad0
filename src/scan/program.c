/*
 * program.c
 *		Conditions of many strategies over columns that they share.
 */
#include "postgres.h"

#include "miscadmin.h"
#include "utils/hsearch.h"

#include "common/hashfn.h"
#include "scan/program.h"

/* A call, or a condition as a whole, by its canonical text. */
typedef struct ProgramColumn
{
	char *text; /* hash key */
	int   uses;
	int   number; /* -1: no column yet */
} ProgramColumn;

struct ProgramColumns
{
	HTAB *by_text;
	List *texts;
};

static uint32
hash_text(const void *key, Size keysize)
{
	const char *text = *(char *const *) key;

	return hash_bytes((const unsigned char *) text, (int) strlen(text));
}

static int
compare_text(const void *a, const void *b, Size keysize)
{
	return strcmp(*(char *const *) a, *(char *const *) b);
}

/* No columns yet, in the current memory context. */
ProgramColumns *
program_columns_begin(void)
{
	ProgramColumns *columns = palloc0(sizeof(ProgramColumns));
	HASHCTL         control = {0};

	control.keysize = sizeof(char *);
	control.entrysize = sizeof(ProgramColumn);
	control.hash = hash_text;
	control.match = compare_text;
	control.hcxt = CurrentMemoryContext;
	columns->by_text = hash_create("columns of a shared pass", 64, &control,
								   HASH_ELEM | HASH_FUNCTION | HASH_COMPARE | HASH_CONTEXT);
	return columns;
}

/*
 * The canonical text of a subtree, which is no longer than that of the
 * condition it is of.
 */
static char *
text_of(const ConditionNode *node)
{
	ConditionError error = {0};
	char          *text = condition_print(node, &error);

	if (text == NULL)
		condition_raise(&error, "");
	return text;
}

static ProgramColumn *
find_column(ProgramColumns *columns, const ConditionNode *node)
{
	char          *text = text_of(node);
	bool           found;
	ProgramColumn *column = hash_search(columns->by_text, &text, HASH_ENTER, &found);

	if (!found)
	{
		column->uses = 0;
		column->number = -1;
	}
	return column;
}

/*
 * Counts the calls of a condition that is to be compiled.  All conditions are
 * counted before the first is compiled.
 */
void
program_columns_count(ProgramColumns *columns, const ConditionNode *condition)
{
	check_stack_depth();
	if (condition->kind == CONDITION_CALL)
		find_column(columns, condition)->uses++;
	else
		for (const ConditionNode *child = condition->first; child; child = child->next)
			program_columns_count(columns, child);
}

/* Is a call below used by another condition, or once more by this one? */
static bool
shares_calls(ProgramColumns *columns, const ConditionNode *node)
{
	check_stack_depth();
	if (node->kind == CONDITION_CALL)
		return find_column(columns, node)->uses > 1;
	for (const ConditionNode *child = node->first; child; child = child->next)
		if (shares_calls(columns, child))
			return true;
	return false;
}

/* The step that reads the column of a subtree. */
static ProgramStep *
column_step(ProgramColumns *columns, const ConditionNode *node)
{
	ProgramColumn *column = find_column(columns, node);
	ProgramStep   *step = palloc0(sizeof(ProgramStep));

	if (column->number < 0)
	{
		column->number = list_length(columns->texts);
		columns->texts = lappend(columns->texts, column->text);
	}
	step->kind = CONDITION_CALL;
	step->column = column->number;
	return step;
}

static ProgramStep *
compile(ProgramColumns *columns, const ConditionNode *node)
{
	ProgramStep  *step;
	ProgramStep **end;

	check_stack_depth();
	if (node->kind == CONDITION_CALL || !shares_calls(columns, node))
		return column_step(columns, node);
	step = palloc0(sizeof(ProgramStep));
	step->kind = node->kind;
	end = &step->first;
	for (const ConditionNode *child = node->first; child; child = child->next)
	{
		*end = compile(columns, child);
		end = &(*end)->next;
	}
	return step;
}

/* The program of a condition; adds the columns that it needs. */
ProgramStep *
program_compile(ProgramColumns *columns, const ConditionNode *condition)
{
	return compile(columns, condition);
}

/* Canonical texts of the conditions that the columns compute, in order. */
List *
program_columns_texts(const ProgramColumns *columns)
{
	return columns->texts;
}

/* True if the program holds, given the columns of one user. */
bool
program_run(const ProgramStep *step, const Datum *values, const bool *nulls)
{
	switch (step->kind)
	{
		case CONDITION_CALL:
			return !nulls[step->column] && DatumGetBool(values[step->column]);
		case CONDITION_NOT:
			return !program_run(step->first, values, nulls);
		case CONDITION_AND:
			for (const ProgramStep *child = step->first; child; child = child->next)
				if (!program_run(child, values, nulls))
					return false;
			return true;
		case CONDITION_OR:
			for (const ProgramStep *child = step->first; child; child = child->next)
				if (program_run(child, values, nulls))
					return true;
			return false;
	}
	return false;
}

/*
 * condition.h
 *		The condition language: text <-> tree -> expression.
 *
 * The grammar and its meaning are in docs/conditions.md.  A condition is
 * stored as its canonical text; the tree lives only between parsing and
 * compiling.
 *
 * Memory: everything returned is allocated in the current memory context and
 * not freed piecemeal.
 *
 * Errors: what is wrong with a condition is a value (ConditionError), so that
 * it can be shown as well as raised.  A text within its size limit can be
 * parsed at any nesting without recursion; a parsed tree is at most
 * CONDITION_MAX_DEPTH deep, so recursion over it is bounded.
 */
#ifndef QM_CONDITION_H
#define QM_CONDITION_H

#include "postgres.h"

#include "nodes/primnodes.h"

#include "common/compat.h"

/* Limits of the text as written and of the canonical text, in bytes and levels. */
#define CONDITION_MAX_BYTES (64 * 1024)
#define CONDITION_MAX_DEPTH 500

typedef enum ConditionKind
{
	CONDITION_AND,
	CONDITION_OR,
	CONDITION_NOT,
	CONDITION_CALL,
} ConditionKind;

typedef enum ArgumentKind
{
	ARGUMENT_TEXT, /* a string or a word */
	ARGUMENT_NUMBER,
} ArgumentKind;

typedef struct ConditionArgument
{
	ArgumentKind              kind;
	bool                      quoted;
	char                     *value;  /* text without its quotes, or a number in canonical form */
	int                       offset; /* in bytes from the start of the text */
	struct ConditionArgument *next;
} ConditionArgument;

typedef struct ConditionNode
{
	ConditionKind kind;
	int           offset; /* in bytes from the start of the text */
	int           depth;  /* levels of this subtree, itself included */
	int           count;  /* of children, or of arguments */
	struct ConditionNode
		*first; /* children, in order; an AND has no AND child, an OR no OR child */
	struct ConditionNode *last;
	struct ConditionNode *next;      /* the next sibling */
	char                 *name;      /* of a CALL, as written: is-vip */
	ConditionArgument    *arguments; /* of a CALL */
} ConditionNode;

/* What is wrong with a condition.  sqlerrcode 0: nothing is. */
typedef struct ConditionError
{
	int   sqlerrcode;
	char *message;
	char *detail; /* or NULL */
	char *hint;   /* or NULL */
	int   offset; /* in bytes; -1: concerns the text as a whole */
} ConditionError;

/* The question that an expression answers. */
typedef enum ConditionMode
{
	CONDITION_MEETS,     /* does the subject meet it? */
	CONDITION_MAY_MATCH, /* would it, if every missing balance were favourable? */
} ConditionMode;

extern ConditionNode *condition_parse(const char *text, int length, ConditionError *error);
extern char          *condition_print(const ConditionNode *node, ConditionError *error);
extern Expr *condition_compile(const ConditionNode *node, Expr *subject, ConditionMode mode,
							   ConditionError *error);

/* The gateway that serves a model, in the current memory context; NULL: none does. */
typedef char *(*GatewayOfModel)(const char *model);

extern void condition_bind(ConditionNode *node, GatewayOfModel gateway_of);

/* Properties of all calls of a condition, or of any. */
typedef struct ConditionTraits
{
	bool        is_built_in;   /* no code of others runs */
	bool        asks_balances; /* the answer may be null: a balance is missing */
	bool        is_immutable;  /* the answer depends on the subject alone */
	const char *others_call;   /* the first one that is not built in, a name in the tree, or NULL */
} ConditionTraits;

extern bool             condition_traits(const ConditionNode *node, ConditionTraits *traits,
										 ConditionError *error);
extern Oid              condition_subject_type(void);
pg_noreturn extern void condition_raise(const ConditionError *error, const char *text);
extern int              condition_error_position(const ConditionError *error, const char *text);
extern void condition_set_error(ConditionError *error, int sqlerrcode, int offset, char *message,
								char *detail, char *hint);

/*
 * A function call resolved: which function, with typed arguments after the
 * subject.  is_balance: its answer may be null.  is_built_in: it is the
 * extension's own, not code of others.
 */
typedef struct ConditionFunction
{
	Oid   oid;
	bool  is_balance;
	bool  is_built_in;
	bool  is_variadic;
	List *arguments;
} ConditionFunction;

extern bool  condition_resolve(const ConditionNode *call, Oid subject_type,
							   ConditionFunction *function, ConditionError *error);
extern char *condition_suggest(const char *name);

#endif /* QM_CONDITION_H */

/*
 * formula.h
 *		Conditions as formulas over facts, for questions about all users that
 *		there could be.
 *
 * A fact is one thing that calls ask about a user: the VIP level, the
 * organisation, whether a project is starred, the balance at a gateway.  Its
 * values fall into regions, of which no call of the formulas tells two values
 * apart; each region has a value that some user can have.  A call is then a set
 * of regions, and a user is one region per fact, any combination of them.
 *
 * Negation is pushed down to the calls, as in compile.c: a balance that is
 * missing is in neither the set of quota-le(...) nor in that of its negation.
 *
 * What is not known exactly is taken to be possible: who asks whether there is
 * such a user may be told yes wrongly, but never no.
 */
#ifndef QM_CONDITION_FORMULA_H
#define QM_CONDITION_FORMULA_H

#include "condition/condition.h"

typedef enum FormulaKind
{
	FORMULA_ALL,  /* every part holds */
	FORMULA_ANY,  /* some part holds */
	FORMULA_CALL, /* the fact is in the regions */
} FormulaKind;

typedef struct Formula
{
	FormulaKind          kind;
	const ConditionNode *node;    /* what it was written as */
	bool                 negated; /* ... and whether the negation of that is meant */
	int                  count;   /* of parts */
	struct Formula      *first;
	struct Formula      *next;
	int                  fact; /* of a CALL: an index into the facts */
	uint64              *regions;
} Formula;

typedef enum FactKind
{
	FACT_CONSTANT, /* true() and false() */
	FACT_VIP,
	FACT_REGISTER_TIME,
	FACT_ACCESS_TIME,
	FACT_USER,
	FACT_ORG,
	FACT_STAR,    /* whether one project is starred */
	FACT_BALANCE, /* at one gateway */
	FACT_OTHER,   /* what a function of others returns */
} FactKind;

typedef struct Fact
{
	FactKind    kind;
	const char *key;      /* the project, the gateway or the call; else "" */
	int         words;    /* of a set of its regions */
	uint64     *possible; /* the regions that have a value */
} Fact;

typedef struct FactTable
{
	int   count;
	Fact *facts;
} FactTable;

/* Which gateways serve models: pairs, by position. */
typedef struct ModelTable
{
	int    count;
	char **models;
	char **gateways;
} ModelTable;

#endif /* QM_CONDITION_FORMULA_H */

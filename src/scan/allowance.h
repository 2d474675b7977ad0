/*
 * allowance.h
 *		How much a strategy grants a user: its amount, or what the user's balance
 *		lacks of it.
 */
#ifndef QM_ALLOWANCE_H
#define QM_ALLOWANCE_H

#include "postgres.h"

#include "gateway/gateway.h"

typedef enum AllowanceKind
{
	ALLOWANCE_ADD,    /* the amount */
	ALLOWANCE_TOP_UP, /* what a balance lacks of the amount */
	ALLOWANCE_EXACT,  /* the same, or the negative of what it is above it */
} AllowanceKind;

typedef struct Allowance
{
	AllowanceKind  kind;
	Datum          amount; /* numeric */
	char          *gateway;
	GatewayDialect dialect;
} Allowance;

/* True if what is granted depends on the balance of the user. */
static inline bool
allowance_asks_balance(const Allowance *allowance)
{
	return allowance->kind != ALLOWANCE_ADD;
}

extern AllowanceKind allowance_kind(const char *name);
extern Datum         allowance_due(const Allowance *allowance, Datum balance);

#endif /* QM_ALLOWANCE_H */

/*
 * lexer.h
 *		Tokens of a condition.
 */
#ifndef QM_CONDITION_LEXER_H
#define QM_CONDITION_LEXER_H

#include "condition/condition.h"

typedef enum TokenKind
{
	TOKEN_END,
	TOKEN_OPEN,
	TOKEN_CLOSE,
	TOKEN_COMMA,
	TOKEN_STRING,
	TOKEN_NUMBER,
	TOKEN_WORD,
	TOKEN_ERROR, /* see *error */
} TokenKind;

typedef struct ConditionToken
{
	TokenKind kind;
	int       offset; /* in bytes */
	char     *value;  /* string without quotes, number in canonical form, word as written */
} ConditionToken;

typedef struct Lexer
{
	const char     *text;
	int             length;
	int             offset; /* of the next byte to read */
	ConditionError *error;
} Lexer;

extern ConditionToken lexer_next(Lexer *lexer);
extern bool           lexer_at_open(const Lexer *lexer);
extern bool           lexer_at_full_width(const Lexer *lexer);

#endif /* QM_CONDITION_LEXER_H */

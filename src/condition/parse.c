/*
 * parse.c
 *		Text of a condition -> tree.
 *
 * A shift-reduce parser with a stack of its own: a long chain written in the
 * functional form nests as deep as its text is long although its tree is
 * flat, and it must mean the same as the infix form.
 */
#include "postgres.h"

#include "nodes/pg_list.h"
#include "miscadmin.h"

#include "common/ascii.h"
#include "condition/lexer.h"

/* What an open bracket belongs to. */
typedef enum FrameKind
{
	FRAME_TEXT,  /* the whole text */
	FRAME_GROUP, /* ( */
	FRAME_AND,   /* and( */
	FRAME_OR,    /* or( */
	FRAME_NOT,   /* not( */
} FrameKind;

/*
 * An expression being read inside a bracket: a disjunction of conjunctions,
 * of which the last is still growing.
 */
typedef struct Frame
{
	FrameKind      kind;
	int            offset;
	int            nots; /* prefix nots that wait for their operand */
	int            not_offset;
	ConditionNode *conjunction; /* what "and" has joined so far, or NULL */
	ConditionNode *disjunction; /* what "or" has joined so far, or NULL */
	ConditionNode *arguments;   /* of and( or or(, what the commas have joined so far */
	int            argument_count;
	struct Frame  *outer;
} Frame;

typedef struct ConditionParser
{
	Lexer           lexer;
	ConditionError *error;
	Frame          *frame;
} ConditionParser;

/* Sets a syntax error; returns false for the caller to return. */
static bool
syntax_error(ConditionParser *parser, int offset, char *message, char *hint)
{
	condition_set_error(parser->error, ERRCODE_INVALID_TEXT_REPRESENTATION, offset, message, NULL,
						hint);
	return false;
}

static ConditionNode *
new_node(ConditionKind kind, int offset)
{
	ConditionNode *node = palloc0(sizeof(ConditionNode));

	node->kind = kind;
	node->offset = offset;
	node->depth = 1;
	return node;
}

/* Appends a child. */
static void
append_child(ConditionNode *node, ConditionNode *child)
{
	if (node->last == NULL)
		node->first = child;
	else
		node->last->next = child;
	node->last = child;
	node->count++;
	node->depth = Max(node->depth, child->depth + 1);
}

/*
 * Appends a condition to a chain of and or or, dissolving a chain of the same
 * operator into it: both forms of the language give the same tree.
 */
static void
append_to_chain(ConditionNode *chain, ConditionNode *node)
{
	if (node->kind != chain->kind)
	{
		append_child(chain, node);
		return;
	}
	if (chain->last == NULL)
		chain->first = node->first;
	else
		chain->last->next = node->first;
	chain->last = node->last;
	chain->count += node->count;
	chain->depth = Max(chain->depth, node->depth);
}

/* Joins two conditions; left may be NULL. */
static ConditionNode *
join(ConditionKind kind, ConditionNode *left, ConditionNode *right)
{
	ConditionNode *chain;

	if (left == NULL)
		return right;
	if (left->kind == kind)
		chain = left;
	else
	{
		chain = new_node(kind, left->offset);
		append_child(chain, left);
	}
	append_to_chain(chain, right);
	return chain;
}

static void
push_frame(ConditionParser *parser, FrameKind kind, int offset)
{
	Frame *frame = palloc0(sizeof(Frame));

	frame->kind = kind;
	frame->offset = offset;
	frame->outer = parser->frame;
	parser->frame = frame;
}

/*
 * An operand is complete: applies the nots before it and adds it to the
 * conjunction.
 */
static void
accept_operand(Frame *frame, ConditionNode *operand)
{
	for (; frame->nots > 0; frame->nots--)
	{
		ConditionNode *negation = new_node(CONDITION_NOT, frame->not_offset);

		append_child(negation, operand);
		operand = negation;
	}
	frame->conjunction = join(CONDITION_AND, frame->conjunction, operand);
}

/*
 * The expression of a frame has ended, at a comma or at its bracket: returns
 * it and clears the frame for the next one.
 */
static ConditionNode *
finish_expression(Frame *frame)
{
	ConditionNode *result = join(CONDITION_OR, frame->disjunction, frame->conjunction);

	frame->disjunction = NULL;
	frame->conjunction = NULL;
	return result;
}

/* Ends one argument of and(, or( or not(. */
static void
finish_argument(Frame *frame)
{
	ConditionNode *argument = finish_expression(frame);

	if (frame->kind == FRAME_NOT)
		frame->arguments = argument;
	else
		frame->arguments = join(frame->kind == FRAME_AND ? CONDITION_AND : CONDITION_OR,
								frame->arguments, argument);
	frame->argument_count++;
}

/* Checks a name: lower-case letters, digits and -. */
static bool
is_function_name(const char *name)
{
	if (!ascii_is_lower(*name))
		return false;
	for (; *name; name++)
		if (!ascii_is_lower(*name) && !ascii_is_digit(*name) && *name != '-')
			return false;
	return true;
}

/* What a word that is no function name was probably meant to be. */
static char *
name_hint(const char *name)
{
	char *wanted = pstrdup(name);

	for (char *p = wanted; *p; p++)
		*p = (char) ((*p == '_') ? '-' : pg_ascii_tolower((unsigned char) *p));
	if (is_function_name(wanted))
		return psprintf("Did you mean %s?", wanted);
	return "Names are written in lower case, with - between words.";
}

/* A token as a message shows it. */
static char *
show_token(const ConditionToken *token)
{
	switch (token->kind)
	{
		case TOKEN_END:
			return "end of the condition";
		case TOKEN_OPEN:
			return "\"(\"";
		case TOKEN_CLOSE:
			return "\")\"";
		case TOKEN_COMMA:
			return "\",\"";
		case TOKEN_STRING:
			return "string";
		default:
			return psprintf("\"%s\"", token->value);
	}
}

/*
 * Reads the arguments of a call, from after its opening bracket to its
 * closing one.
 */
static bool
read_arguments(ConditionParser *parser, ConditionNode *call)
{
	ConditionArgument **tail = &call->arguments;
	ConditionToken      token = lexer_next(&parser->lexer);

	if (token.kind == TOKEN_CLOSE)
		return true;
	for (;;)
	{
		ConditionArgument *argument;

		if (token.kind == TOKEN_ERROR)
			return false;
		if (token.kind != TOKEN_STRING && token.kind != TOKEN_NUMBER && token.kind != TOKEN_WORD)
			return syntax_error(parser, token.offset,
								psprintf("unexpected %s where an argument of %s is expected",
										 show_token(&token), call->name),
								NULL);
		if (token.kind == TOKEN_WORD && lexer_at_open(&parser->lexer))
			return syntax_error(
				parser, token.offset,
				psprintf("%s takes texts and numbers as arguments, not conditions", call->name),
				NULL);
		argument = palloc0(sizeof(ConditionArgument));
		argument->kind = (token.kind == TOKEN_NUMBER) ? ARGUMENT_NUMBER : ARGUMENT_TEXT;
		argument->quoted = (token.kind == TOKEN_STRING);
		argument->value = token.value;
		argument->offset = token.offset;
		*tail = argument;
		tail = &argument->next;
		call->count++;

		token = lexer_next(&parser->lexer);
		if (token.kind == TOKEN_ERROR)
			return false;
		if (token.kind == TOKEN_CLOSE)
			return true;
		if (token.kind != TOKEN_COMMA)
			return syntax_error(
				parser, token.offset,
				psprintf("unexpected %s in the arguments of %s", show_token(&token), call->name),
				"Arguments are separated by commas and end with a closing bracket.");
		token = lexer_next(&parser->lexer);
	}
}

/* True for a word that joins conditions. */
static bool
is_connective(const char *word)
{
	return strcmp(word, "and") == 0 || strcmp(word, "or") == 0 || strcmp(word, "not") == 0;
}

/* A call was expected and is not there.  Always false. */
static bool
missing_call(ConditionParser *parser, const ConditionToken *token)
{
	/* A full-width bracket. */
	if (token->kind == TOKEN_WORD && lexer_at_full_width(&parser->lexer))
	{
		lexer_next(&parser->lexer);
		return false;
	}
	if (token->kind == TOKEN_WORD && is_function_name(token->value) &&
		strcmp(token->value, "and") != 0 && strcmp(token->value, "or") != 0)
		return syntax_error(
			parser, token->offset, psprintf("\"%s\" is not a condition", token->value),
			psprintf("Write %s(), with its arguments in the brackets.", token->value));
	return syntax_error(parser, token->offset,
						psprintf("unexpected %s where a condition is expected", show_token(token)),
						"A condition is a call such as is-vip(1).");
}

/* Reads the beginning of and(...), or(...) or not(...), whose word was read. */
static bool
read_connective(ConditionParser *parser, const ConditionToken *word)
{
	Lexer ahead;
	char  first = word->value[0];

	push_frame(parser,
			   first == 'a'   ? FRAME_AND
			   : first == 'o' ? FRAME_OR
							  : FRAME_NOT,
			   word->offset);
	lexer_next(&parser->lexer);
	if (parser->lexer.offset >= parser->lexer.length)
		return true;
	ahead = parser->lexer;
	if (lexer_next(&ahead).kind == TOKEN_CLOSE)
		return syntax_error(parser, word->offset, psprintf("%s() has no arguments", word->value),
							first == 'n' ? "not takes one condition."
										 : "It takes two or more conditions.");
	return true;
}

/*
 * Reads what begins a condition: a bracket, a not, or a call.  *complete
 * is set if an operand ended here.
 */
static bool
read_operand(ConditionParser *parser, bool *complete)
{
	ConditionToken token = lexer_next(&parser->lexer);
	ConditionNode *call;

	*complete = false;
	if (token.kind == TOKEN_ERROR)
		return false;
	if (token.kind == TOKEN_OPEN)
	{
		push_frame(parser, FRAME_GROUP, token.offset);
		return true;
	}
	if (token.kind == TOKEN_WORD && strcmp(token.value, "not") == 0 &&
		!lexer_at_open(&parser->lexer))
	{
		if (parser->frame->nots++ == 0)
			parser->frame->not_offset = token.offset;
		return true;
	}
	if (token.kind != TOKEN_WORD || !lexer_at_open(&parser->lexer))
		return missing_call(parser, &token);
	if (!is_function_name(token.value))
		return syntax_error(parser, token.offset,
							psprintf("invalid condition function name \"%s\"", token.value),
							name_hint(token.value));
	if (is_connective(token.value))
		return read_connective(parser, &token);

	call = new_node(CONDITION_CALL, token.offset);
	call->name = token.value;
	lexer_next(&parser->lexer);
	if (!read_arguments(parser, call))
		return false;
	accept_operand(parser->frame, call);
	*complete = true;
	return true;
}

/*
 * A closing bracket: ends the innermost frame and gives its condition to the
 * one around it.
 */
static bool
close_frame(ConditionParser *parser, int offset)
{
	Frame         *frame = parser->frame;
	ConditionNode *result;

	if (frame->kind == FRAME_TEXT)
		return syntax_error(parser, offset, "unexpected \")\"",
							"There is no opening bracket for it.");
	if (frame->kind == FRAME_GROUP)
		result = finish_expression(frame);
	else
	{
		finish_argument(frame);
		if (frame->kind == FRAME_NOT)
		{
			result = new_node(CONDITION_NOT, frame->offset);
			append_child(result, frame->arguments);
		}
		else
		{
			if (frame->argument_count < 2)
				return syntax_error(parser, frame->offset,
									psprintf("%s takes two or more conditions, not one",
											 frame->kind == FRAME_AND ? "and" : "or"),
									NULL);
			result = frame->arguments;
		}
	}
	parser->frame = frame->outer;
	pfree(frame);
	accept_operand(parser->frame, result);
	return true;
}

/*
 * Reads what follows an operand.  *more is set if another operand must
 * follow, *end if the text is complete.
 */
static bool
read_operator(ConditionParser *parser, bool *more, bool *end)
{
	Frame         *frame = parser->frame;
	ConditionToken token = lexer_next(&parser->lexer);

	*more = true;
	*end = false;
	switch (token.kind)
	{
		case TOKEN_ERROR:
			return false;
		case TOKEN_WORD:
			if (strcmp(token.value, "and") == 0)
				return true;
			if (strcmp(token.value, "or") == 0)
			{
				frame->disjunction = join(CONDITION_OR, frame->disjunction, frame->conjunction);
				frame->conjunction = NULL;
				return true;
			}
			break;
		case TOKEN_COMMA:
			if (frame->kind == FRAME_AND || frame->kind == FRAME_OR)
			{
				finish_argument(frame);
				return true;
			}
			if (frame->kind == FRAME_NOT)
				return syntax_error(parser, token.offset, "not takes one condition", NULL);
			break;
		case TOKEN_CLOSE:
			*more = false;
			return close_frame(parser, token.offset);
		case TOKEN_END:
			if (frame->kind != FRAME_TEXT)
				return syntax_error(parser, frame->offset, "unbalanced brackets",
									"A closing bracket is missing.");
			*more = false;
			*end = true;
			return true;
		default:
			break;
	}
	return syntax_error(parser, token.offset,
						psprintf("unexpected %s after a condition", show_token(&token)),
						"Conditions are joined with and, or.");
}

/*
 * Parses a text of the given length; NULL and *error when it is not a
 * condition.
 */
ConditionNode *
condition_parse(const char *text, int length, ConditionError *error)
{
	ConditionParser parser = {{text, length, 0, error}, error, NULL};
	Lexer           ahead;
	ConditionNode  *result;
	bool            want_operand = true;
	bool            end = false;

	if (length > CONDITION_MAX_BYTES)
	{
		condition_set_error(
			error, ERRCODE_INVALID_PARAMETER_VALUE, -1, "condition is too long",
			psprintf("It has %d bytes; the limit is %d.", length, CONDITION_MAX_BYTES), NULL);
		return NULL;
	}
	push_frame(&parser, FRAME_TEXT, 0);
	ahead = parser.lexer;
	if (lexer_next(&ahead).kind == TOKEN_END)
	{
		syntax_error(&parser, 0, "empty condition", "Write true() to match everyone.");
		return NULL;
	}
	while (!end)
	{
		CHECK_FOR_INTERRUPTS();
		if (want_operand)
		{
			bool complete;

			if (!read_operand(&parser, &complete))
				return NULL;
			want_operand = !complete;
		}
		else if (!read_operator(&parser, &want_operand, &end))
			return NULL;
	}
	result = finish_expression(parser.frame);
	if (result->depth > CONDITION_MAX_DEPTH)
	{
		condition_set_error(
			error, ERRCODE_INVALID_PARAMETER_VALUE, -1, "condition is nested too deeply",
			psprintf("It has %d levels; the limit is %d.", result->depth, CONDITION_MAX_DEPTH),
			NULL);
		return NULL;
	}
	return result;
}

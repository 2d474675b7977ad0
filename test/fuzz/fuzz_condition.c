/*
 * fuzz_condition.c
 *		A target of libFuzzer: any text as a condition.
 *
 * A condition has a canonical text, which reads as the same; anything else has
 * an error with a message, at a place within the text.
 */
#include "server.h"

#include "condition/condition.h"

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	char          *text = server_text(data, size);
	ConditionError error = {0};
	ConditionNode *node = condition_parse(text, (int) strlen(text), &error);
	char          *canonical = node != NULL ? condition_print(node, &error) : NULL;

	if (canonical == NULL)
	{
		REQUIRE(error.sqlerrcode != 0 && error.message != NULL);
		REQUIRE(error.offset >= -1 && error.offset <= (int) strlen(text));
		REQUIRE(condition_error_position(&error, text) >= 0);
	}
	else
	{
		ConditionError again = {0};

		REQUIRE(error.sqlerrcode == 0 && strlen(canonical) <= CONDITION_MAX_BYTES);
		node = condition_parse(canonical, (int) strlen(canonical), &again);
		REQUIRE(node != NULL && node->depth <= CONDITION_MAX_DEPTH);
		REQUIRE(strcmp(condition_print(node, &again), canonical) == 0);
	}
	server_reset();
	return 0;
}

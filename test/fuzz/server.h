/*
 * server.h
 *		For targets of libFuzzer: see server.c.
 */
#ifndef QM_FUZZ_SERVER_H
#define QM_FUZZ_SERVER_H

#include "postgres.h"

/* The target that libFuzzer calls. */
extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Gives back all that was allocated. */
extern void server_reset(void);

/* The bytes as a text that a database could hold: without NUL, and ASCII unless it is UTF-8. */
extern char *server_text(const uint8_t *data, size_t size);

/* Aborts, and so tells libFuzzer, if something does not hold. */
#define REQUIRE(condition)                                                                         \
	do                                                                                             \
	{                                                                                              \
		if (!(condition))                                                                          \
		{                                                                                          \
			fprintf(stderr, "does not hold: %s\n", #condition);                                    \
			abort();                                                                               \
		}                                                                                          \
	} while (0)

#endif /* QM_FUZZ_SERVER_H */

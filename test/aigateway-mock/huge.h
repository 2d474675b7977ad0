/*
 * huge.h
 *		Replies far larger than any client should read; they are made while they are sent.
 */
#ifndef HUGE_H
#define HUGE_H

#include <stdint.h>

#include "answer.h"

/* Makes the body of the answer as long as that, still JSON if it was. */
extern void huge_answer(uint64_t size, struct answer *answer);

#endif

/*
 * listing.h
 *		The list of applied changes as a reply that is made while it is sent.
 *
 * A million changes are too much for one piece of memory and one hold of the lock.  The list ends with
 * the last change of the moment it was asked for; if the ledger is reset meanwhile the connection is
 * closed in the middle, which chunked encoding makes visible.
 */
#ifndef LISTING_H
#define LISTING_H

#include "answer.h"
#include "ledger.h"

/* Answers with the changes from this number on (the first is 1). */
extern void listing_answer(enum ledger_format format, uint64_t from, struct answer *answer);

#endif

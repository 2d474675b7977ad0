/*
 * occupied.h
 *		Of the launcher: databases that somebody drops, renames, moves or copies.
 */
#ifndef QM_OCCUPIED_H
#define QM_OCCUPIED_H

/* While it is not sure that workers are in the way it is looked again after this time. */
#define OCCUPIED_LOOK_MS 100

extern bool look_for_occupants(bool *freed);

#endif /* QM_OCCUPIED_H */

/*
 * occupied.h
 *		Of the launcher: databases that somebody drops, renames, moves or copies.
 */
#ifndef QM_OCCUPIED_H
#define QM_OCCUPIED_H

/* While it is not sure that workers are in the way it is looked again after this time. */
#define OCCUPIED_LOOK_MS 100

/*
 * Looks which databases are locked by such commands: none is started there.
 * Where workers are in the way of one, database->claimed is set, and they are
 * to end.  Returns true if it is to be looked again soon; *freed is set if one
 * was locked and is not any more.
 */
extern bool look_for_occupants(bool *freed);

#endif /* QM_OCCUPIED_H */

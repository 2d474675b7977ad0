/*
 * place.c
 *		The places for schedulers, and what they and their launcher tell each
 *		other there.
 */
#include "postgres.h"

#include "storage/ipc.h"

#include "worker/place.h"

/*
 * Makes a board, for the life of this process.  Raises an error if there is no
 * memory.
 */
Board *
board_create(int places, dsm_handle *handle)
{
	dsm_segment *segment = dsm_create(offsetof(Board, places) + sizeof(Place) * places, 0);
	Board       *board = dsm_segment_address(segment);

	dsm_pin_mapping(segment);
	pg_atomic_init_u32(&board->waiting, 0);
	board->count = places;
	for (int i = 0; i < places; i++)
	{
		pg_atomic_init_u32(&board->places[i].asked, 0);
		pg_atomic_init_u32(&board->places[i].answered, 0);
		pg_atomic_init_u64(&board->places[i].courier_next, 0);
	}
	*handle = dsm_segment_handle(segment);
	return board;
}

/*
 * The place with this number of the board with this handle; *board is set too.
 * Ends the process if the board is gone: its launcher is, and another one will
 * start another scheduler.
 */
Place *
board_attach(dsm_handle handle, int number, Board **board)
{
	dsm_segment *segment = dsm_attach(handle);

	if (segment == NULL)
		proc_exit(0);
	dsm_pin_mapping(segment);
	*board = dsm_segment_address(segment);
	return &(*board)->places[number];
}

/*
 * Makes a place ready for a scheduler; what the last turn left is to be filled
 * in by the caller.  The first look of a courier counts as asked for.
 */
void
place_prepare(Place *place)
{
	place->end = SCHEDULER_BROKE;
	place->wanted = MONO_PAST;
	place->obstacle[0] = '\0';
	place->connected = false;
	place->served = false;
	place->announced = false;
	memset(&place->memory, 0, sizeof(place->memory));
	place->about_to_leave = false;
	place->leaving = false;
	place->courier_state = COURIER_NOT_STARTED;
	place->courier_complaint = 0;
	pg_atomic_write_u32(&place->asked, 1);
	pg_atomic_write_u32(&place->answered, 0);
	pg_atomic_write_u64(&place->courier_next, (uint64) MONO_PAST);
}

/*
 * True if a database waits.
 */
bool
board_is_contended(Board *board)
{
	return pg_atomic_read_u32(&board->waiting) > 0;
}

/*
 * Takes upon itself to make room for a database that waits.  False: none does
 * any more.
 */
bool
board_make_room(Board *board)
{
	uint32 waiting = pg_atomic_read_u32(&board->waiting);

	while (waiting > 0)
	{
		if (pg_atomic_compare_exchange_u32(&board->waiting, &waiting, waiting - 1))
			return true;
	}
	return false;
}

/*
 * Of the courier: takes note of what is asked for now, and says that so much
 * has been done.
 */
uint32
place_asked(Place *place)
{
	uint32 asked = pg_atomic_read_u32(&place->asked);

	pg_memory_barrier();
	return asked;
}

/*
 * Of the courier: takes note of what is asked for now, and says that so much
 * has been done.
 */
void
place_answer(Place *place, uint32 asked, MonoTime next)
{
	pg_atomic_write_u64(&place->courier_next, (uint64) next);
	pg_memory_barrier();
	pg_atomic_write_u32(&place->answered, asked);
}

/*
 * Of the scheduler: asks the courier, and whether it has done what was asked
 * for.
 */
void
place_ask(Place *place)
{
	pg_memory_barrier();
	(void) pg_atomic_fetch_add_u32(&place->asked, 1);
}

/*
 * Of the scheduler: asks the courier, and whether it has done what was asked
 * for.
 */
bool
place_is_answered(Place *place)
{
	return pg_atomic_read_u32(&place->answered) == pg_atomic_read_u32(&place->asked);
}

/*
 * Of the scheduler: asks the courier, and whether it has done what was asked
 * for.
 */
MonoTime
place_courier_next(Place *place)
{
	return (MonoTime) pg_atomic_read_u64(&place->courier_next);
}

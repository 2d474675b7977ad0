/*
 * deliver.c
 *		CALL quota_manager.deliver()
 */
#include "postgres.h"

#include "access/htup_details.h"
#include "executor/spi.h"
#include "fmgr.h"
#include "funcapi.h"

#include "common/version.h"
#include "delivery/delivery.h"
#include "delivery/timing.h"
#include "common/identity.h"

PG_FUNCTION_INFO_V1(qm_deliver);

/*
 * deliver(INOUT completed, INOUT failed, INOUT in_doubt, INOUT deferred):
 * delivers what is due and returns how many grants became what.
 */
Datum
qm_deliver(PG_FUNCTION_ARGS)
{
	MemoryContext caller = CurrentMemoryContext;
	DeliveryCount count = {0};
	Delivery     *delivery;
	TupleDesc     descriptor;
	Datum         values[4];
	bool          nulls[4] = {false, false, false, false};

	procedure_connect(fcinfo, "deliver()");
	require_fitting_extension();
	identity_require(&procedure_work_unit);
	delivery = delivery_create(&procedure_work_unit);
	PG_TRY();
	{
		(void) delivery_loop(delivery, NULL, LEAVE_GRACE_MS, &count);
		delivery_explain(delivery);
	}
	PG_FINALLY();
	{
		delivery_free(delivery);
	}
	PG_END_TRY();
	SPI_finish();

	MemoryContextSwitchTo(caller);
	if (get_call_result_type(fcinfo, NULL, &descriptor) != TYPEFUNC_COMPOSITE)
		elog(ERROR, "deliver() does not return a row");
	values[0] = Int64GetDatum(count.completed);
	values[1] = Int64GetDatum(count.failed);
	values[2] = Int64GetDatum(count.in_doubt);
	values[3] = Int64GetDatum(count.deferred);
	PG_RETURN_DATUM(HeapTupleGetDatum(heap_form_tuple(descriptor, values, nulls)));
}

/*
 * health_check.c
 *		Asks a gateway whether it works, and whether it takes grants.
 */
#include "postgres.h"

#include "common/pg_prng.h"
#include "utils/builtins.h"

#include "common/crash_point.h"
#include "delivery/sender.h"

/* A user whom the gateway has never seen: it answers for those as well. */
#define MADE_UP_USER "quota_manager-probe"

/* Ids that are longer cannot be sent in a URL everywhere. */
#define USER_ID_MAX 4096

/*
 * A user to ask about, allocated in the current memory context: of a pending
 * grant, or of one that awaits a verdict or is in doubt.  NULL: there is no
 * such user, so nothing waits for the gateway.
 *
 * Alternates between a real and a made-up user, and now and then by chance, so
 * that one bad user cannot keep the circuit closed, nor a gateway that answers
 * for known users only.
 */
static char *
choose_user(Sender *sender)
{
	int          candidates = candidates_left(&sender->search);
	int          chosen = sender->search.next;
	const Grant *refused = grants_first(&sender->grants, GRANT_AWAITING_VERDICT);
	const Grant *grant;
	bool         is_suspect;
	char        *user;

	if (refused == NULL)
		refused = grants_first(&sender->grants, GRANT_SAMPLE_REFUSED);
	grant = refused != NULL ? refused : grants_first(&sender->grants, GRANT_UNRESOLVED);
	if (candidates == 0 && grant == NULL)
		return NULL;
	/* not first about the only one there is, whom it has just refused */
	is_suspect = candidates == 0 && refused != NULL;
	if ((sender->circuit.failed_checks + is_suspect) % 2 == 1 ||
		pg_prng_uint64_range(&pg_global_prng_state, 0, candidates <= 1 ? 1 : 3) == 0)
		return pstrdup(MADE_UP_USER);
	if (candidates > 0)
		chosen += (int) pg_prng_uint64_range(&pg_global_prng_state, 0, candidates - 1);
	user = candidates > 0 ? text_to_cstring(sender->search.candidates[chosen].user_id)
						  : pstrdup(grant->key.user_id);
	if (user[0] != '\0' && strlen(user) <= USER_ID_MAX)
		return user;
	pfree(user);
	return pstrdup(MADE_UP_USER);
}

/*
 * Sends the check that the circuit wants.  Where nothing waits for the gateway,
 * or rate_limit lets nothing go now, it stays due.
 */
void
health_check_send(Sender *sender)
{
	Circuit       *circuit = &sender->circuit;
	GatewayRequest request = {GATEWAY_QUERY};
	char          *user;

	if (sender->reopen || gateway_free_slots(sender->session) == 0)
		sender_drop_queries(sender);
	if (!sender_open_session(sender))
		return;
	user = choose_user(sender);
	if (user == NULL)
		return;
	request.user_id = user;
	request.token = &sender->checks[circuit->check];
	if (circuit->check == WRITE_CHECK)
	{
		request.action = GATEWAY_DELTA;
		request.amount = "0";
	}
	if (sender_take_token(sender))
	{
		GatewayReply reply = {GATEWAY_NOT_SENT, .message = "out of memory"};

		circuit_check_started(circuit, mono_now());
		if (!gateway_submit(sender->session, &request))
			health_check_answered(sender, request.token, &reply);
		CRASH_POINT(health_check_sent);
	}
	pfree(user);
}

/*
 * How many grants that await a verdict were refused without a word about their
 * parameters.
 */
static int
count_refused(Sender *sender)
{
	int count = 0;

	grants_foreach (grant, &sender->grants, GRANT_AWAITING_VERDICT)
		count += !grant->outcome.names_parameters;
	return count;
}

/* A check was answered, or not. */
void
health_check_answered(Sender *sender, const RequestTag *tag, const GatewayReply *reply)
{
	CheckKind check = tag->kind == REQUEST_WRITE_CHECK ? WRITE_CHECK : HEALTH_CHECK;

	if (!circuit_check_ended(&sender->circuit, check))
		return;
	CRASH_POINT(health_check_answered);
	sender_act(sender, circuit_checked(&sender->circuit, reply, count_refused(sender), mono_now()));
}

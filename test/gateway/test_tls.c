/*
 * test_tls.c
 *		Certificates: without one that is valid for the host nothing is sent.
 */
#include "check.h"

void
test_tls(const char *base_url, bool trusted)
{
	GatewayConfig   config = test_config(GATEWAY_HIGRESS, base_url);
	GatewaySession *session = open_session(&config);
	GatewayReply    reply = ask(session, GATEWAY_QUERY, "u", NULL);

	if (trusted)
		CHECK(reply.http_status == 200, "HTTP %ld, \"%s\"", reply.http_status, reply.message);
	else
	{
		EXPECT(reply, GATEWAY_NOT_SENT, "query");
		EXPECT(ask(session, GATEWAY_DELTA, "u", "1"), GATEWAY_NOT_SENT, "delta");
	}
	gateway_close(session);
}

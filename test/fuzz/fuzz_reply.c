/*
 * fuzz_reply.c
 *		A libFuzzer target: any bytes as the body of any reply.
 *
 * The first two bytes choose dialect, kind and status, the rest is the body.
 * Build with clang -fsanitize=fuzzer,address,undefined; see run.sh.
 */
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

#include "check.h"
#include "gateway/classify.h"

extern int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* A balance may be beyond what can be sent, but has no more decimals than a gateway has. */
static int
is_decimal(const char *text)
{
	size_t digits;

	text += *text == '-';
	digits = strspn(text, "0123456789");
	if (digits == 0 || digits > 19)
		return 0;
	text += digits;
	if (*text == '\0')
		return 1;
	digits = *text == '.' ? strspn(text + 1, "0123456789") : 0;
	return digits > 0 && digits <= 6 && text[digits + 1] == '\0';
}

int
LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	static const long statuses[] = {200, 200, 200, 200, 201, 400, 403, 503};
	Exchange          exchange = {
				 .user_id = "u1", .secret = CREDENTIAL, .headers_whole = true, .retry_after = -1};
	GatewayReply reply;

	if (size < 2)
		return 0;
	exchange.dialect = data[0] & 1 ? GATEWAY_ZGSM : GATEWAY_HIGRESS;
	exchange.kind = (ExchangeKind) ((data[0] >> 1) & 3);
	exchange.http_status = statuses[data[1] & 7];
	exchange.body = (const char *) data + 2;
	exchange.body_length = size - 2;
	classify(&exchange, &reply);

	if ((reply.outcome == GATEWAY_COMPLETED) != (reply.message[0] == '\0') ||
		reply.outcome == GATEWAY_NOT_SENT || strstr(reply.message, CREDENTIAL) != NULL ||
		strpbrk(reply.message, "\r\n\t") != NULL)
		abort();
	if (reply.balance[0] != '\0' && !is_decimal(reply.balance))
		abort();
	return 0;
}

/*
 * main.c
 *		Runs the checks of src/gateway.
 *
 * Usage: gateway-test [higress=URL] [zgsm=URL] [trusted=URL] [untrusted=URL]
 * With the first two the checks run too that need aigateway-mock in that
 * dialect; its key is the CREDENTIAL of check.h.  The other two are TLS servers
 * that answer 200 to any GET, with certificates that are to be trusted or not.
 */
#include <stdio.h>

#include "check.h"

int
main(int argc, char **argv)
{
	int i;

	setvbuf(stdout, NULL, _IOLBF, 0);
	test_values();
	test_address();
	test_classes();
	test_wire();
	test_faults();
	test_hostile();
	test_session();
	for (i = 1; i < argc; i++)
	{
		if (strncmp(argv[i], "higress=", 8) == 0)
			test_mock(GATEWAY_HIGRESS, argv[i] + 8);
		else if (strncmp(argv[i], "zgsm=", 5) == 0)
			test_mock(GATEWAY_ZGSM, argv[i] + 5);
		else if (strncmp(argv[i], "trusted=", 8) == 0)
			test_tls(argv[i] + 8, true);
		else if (strncmp(argv[i], "untrusted=", 10) == 0)
			test_tls(argv[i] + 10, false);
	}
	return check_summary();
}

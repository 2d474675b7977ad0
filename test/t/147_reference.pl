
# docs/reference.md says what the catalogue and the sources say.

use strict;
use warnings FATAL => 'all';

use FindBin;
use lib "$FindBin::RealBin/../perl";

use IPC::Run ();
use PostgreSQL::Test::Utils;
use QuotaTest::ScanNode qw(scan_node);
use Test::More;

my $root = "$FindBin::RealBin/../..";
my $node = scan_node('reference', "shared_preload_libraries = 'quota_manager'\n");
my ($out, $err);

ok(IPC::Run::run([ 'perl', "$root/scripts/reference-page", $node->connstr('postgres') ], '>', \$out, '2>', \$err), 'the page can be written')
  or diag($err);
$node->stop;

my @is = split /^/, slurp_file("$root/docs/reference.md");
my @wanted = split /^/, $out;
my ($line) = grep { ($is[$_] // '') ne ($wanted[$_] // '') } 0 .. (@is > @wanted ? $#is : $#wanted);

ok(!defined $line, 'docs/reference.md is up to date')
  or diag('To write it anew: scripts/build-reference (or make reference).  It differs from line ' . ($line + 1) . " on.\n"
	  . 'is:     ' . ($is[$line] // "(end)\n") . 'wanted: ' . ($wanted[$line] // "(end)\n"));

# Nothing is left out that people can use.
my $page = join '', @wanted;
foreach my $name ('### scan', '### quota_manager.quota_strategy', '### quota_manager.worker_status', '### quota_manager.max_workers', '### 22P02 ')
{
	like($page, qr/^\Q$name\E/m, "it has: $name");
}

done_testing();

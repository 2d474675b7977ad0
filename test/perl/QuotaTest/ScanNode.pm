
=pod

=head1 NAME

QuotaTest::ScanNode - a cluster with the extension, and tables compared row by row

=head1 SYNOPSIS

  my $node = scan_node('dump');
  add_gateway($node, 'postgres');
  my $before = contents($node, 'postgres');

=cut

package QuotaTest::ScanNode;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use PostgreSQL::Test::Cluster;

our @EXPORT_OK = qw(scan_node add_gateway contents sequences tables);

# A running cluster whose database postgres has the extension.  Nothing is
# delivered in it, and the schedule clock stands at eight in the morning.
sub scan_node
{
	my ($name, $settings) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);

	$ENV{PGCLIENTENCODING} = 'UTF8';
	$node->init(extra => [ '--encoding=UTF8', '--locale=C', '--no-sync' ]);
	$node->append_conf('postgresql.conf', <<'CONF');
timezone = 'UTC'
datestyle = 'ISO'
fsync = off
quota_manager.default_strategy_state = active
quota_manager.delete_proof = on
CONF
	$node->append_conf('postgresql.conf', $settings) if $settings;
	$node->start;
	$node->safe_psql('postgres', 'CREATE EXTENSION quota_manager');
	return $node;
}

# A gateway that serves every model; nothing listens there.
sub add_gateway
{
	my ($node, $database) = @_;

	$node->safe_psql($database, <<'SQL');
INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, is_default)
	VALUES ('gateway', 'zgsm', 'http://127.0.0.1:9', true)
SQL
	return;
}

# What psql says of a statement: its error or notice, without the lines that lead to it.
sub said
{
	my ($node, $statement) = @_;
	my ($code, $out, $err) = $node->psql('postgres', "\\set SHOW_CONTEXT never\nSET search_path = quota_manager; $statement", on_error_stop => 0);

	return $err =~ s/^psql:<stdin>:\d+: //gmr =~ s/^LINE \d+:.*\n *\^\n//gmr;
}

# The tables of the extension, but those with keys and with what went wrong last: they are never dumped.
sub tables
{
	my ($node, $database) = @_;

	return split /\n/, $node->safe_psql($database, <<'SQL');
SELECT c.relname FROM pg_class c
JOIN pg_depend d ON d.classid = 'pg_class'::regclass AND d.objid = c.oid AND d.deptype = 'e' AND c.relnamespace = 'quota_manager'::regnamespace
JOIN pg_extension e ON d.refclassid = 'pg_extension'::regclass AND e.oid = d.refobjid AND e.extname = 'quota_manager'
WHERE c.relkind = 'r' AND c.relname NOT IN ('quota_credential', 'quota_worker') ORDER BY 1
SQL
}

# Every row of every table, as a hash of table and rows in a fixed order.
sub contents
{
	my ($node, $database) = @_;

	return {
		map {
			$_ => $node->safe_psql($database,
				qq{SELECT t.*::text FROM quota_manager."$_" t ORDER BY t.*::text COLLATE "C"})
		} tables($node, $database)
	};
}

# Where every sequence of the extension stands.
sub sequences
{
	my ($node, $database) = @_;

	return $node->safe_psql($database, <<'SQL');
SELECT string_agg(sequencename || ' ' || coalesce(last_value::text, 'unused'), E'\n' ORDER BY sequencename)
FROM pg_sequences WHERE schemaname = 'quota_manager'
SQL
}

1;

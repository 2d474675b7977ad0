
=pod

=head1 NAME

QuotaTest::ConditionNode - a server to try conditions on

=cut

package QuotaTest::ConditionNode;

use strict;
use warnings FATAL => 'all';

use Exporter 'import';
use PostgreSQL::Test::Cluster;
use QuotaTest::ConditionGenerator;

our @EXPORT_OK = qw(condition_node);

# A running server with the extension, the gateways "default" and "other", and
# the models that the latter serves. Its time zone and date style are unusual:
# conditions must not depend on them.
sub condition_node
{
	my ($name) = @_;
	my $node = PostgreSQL::Test::Cluster->new($name);
	my $served_by = \%QuotaTest::ConditionGenerator::served_by;

	$ENV{PGCLIENTENCODING} = 'UTF8';
	$node->init(extra => [ '--encoding=UTF8', '--locale=C', '--no-sync' ]);
	$node->append_conf('postgresql.conf', <<'CONF');
timezone = 'America/St_Johns'
datestyle = 'SQL, DMY'
log_min_error_statement = panic
log_min_messages = fatal
log_statement = none
quota_manager.default_strategy_state = active
CONF
	$node->start;
	$node->safe_psql('postgres', <<'SQL');
CREATE EXTENSION quota_manager;
INSERT INTO quota_manager.quota_gateway (name, dialect, base_url, is_default)
	VALUES ('default', 'zgsm', 'http://127.0.0.1:1', true),
		('other', 'zgsm', 'http://127.0.0.1:1', false);
SQL
	foreach my $model (sort keys %$served_by)
	{
		my $sql = "INSERT INTO quota_manager.quota_model (model, gateway)
			VALUES ('$model', '$served_by->{$model}')";

		utf8::encode($sql);
		$node->safe_psql('postgres', $sql);
	}
	return $node;
}

1;

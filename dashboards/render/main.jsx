// Draws one Perses dashboard with Perses' own panels: ?dashboard=URL&prometheus=URL&theme=light|dark&scraped=5s.
import { CssBaseline, ThemeProvider, Typography } from '@mui/material';
import { ChartsProvider, SnackbarProvider, generateChartsTheme, getTheme } from '@perses-dev/components';
import { ViewDashboard } from '@perses-dev/dashboards';
import { PluginRegistry, dynamicImportPluginLoader } from '@perses-dev/plugin-system';
import * as prometheus from '@perses-dev/prometheus-plugin';
import * as stat from '@perses-dev/stat-chart-plugin';
import * as timeseries from '@perses-dev/timeseries-chart-plugin';
import { QueryClient, QueryClientProvider } from '@tanstack/react-query';
import { createRoot } from 'react-dom/client';
import { BrowserRouter } from 'react-router-dom';
import { QueryParamProvider } from 'use-query-params';
import { WindowHistoryAdapter } from 'use-query-params/adapters/window';

const plugins = dynamicImportPluginLoader(
  [prometheus, stat, timeseries].map((plugin) => ({
    resource: plugin.getPluginModule(),
    importPlugin: () => Promise.resolve(plugin),
  }))
);
const kinds = { Panel: 'TimeSeriesChart', TimeSeriesQuery: 'PrometheusTimeSeriesQuery' };

/** The only datasource: the Prometheus of the address line, asked directly. */
function datasourceAt(directUrl, scrapeInterval) {
  const spec = { default: true, plugin: { kind: 'PrometheusDatasource', spec: { directUrl, scrapeInterval } } };
  const source = { kind: 'GlobalDatasource', metadata: { name: 'prometheus' }, spec };
  return {
    getDatasource: () => Promise.resolve(undefined),
    getGlobalDatasource: () => Promise.resolve(source),
    listDatasources: () => Promise.resolve([]),
    listGlobalDatasources: () => Promise.resolve([source]),
  };
}

function Page({ dashboard, source, mode }) {
  const theme = getTheme(mode);
  const queries = new QueryClient({ defaultOptions: { queries: { refetchOnWindowFocus: false, retry: 1 } } });
  return (
    <BrowserRouter>
      <QueryParamProvider adapter={WindowHistoryAdapter}>
        <ThemeProvider theme={theme}>
          <CssBaseline />
          <ChartsProvider chartsTheme={generateChartsTheme(theme, {})}>
            <SnackbarProvider>
              <PluginRegistry pluginLoader={plugins} defaultPluginKinds={kinds}>
                <QueryClientProvider client={queries}>
                  <ViewDashboard
                    dashboardResource={dashboard}
                    datasourceApi={source}
                    dashboardTitleComponent={<Typography variant="h2">{dashboard.spec.display.name}</Typography>}
                    isReadonly={true}
                    isVariableEnabled={true}
                    isDatasourceEnabled={false}
                  />
                </QueryClientProvider>
              </PluginRegistry>
            </SnackbarProvider>
          </ChartsProvider>
        </ThemeProvider>
      </QueryParamProvider>
    </BrowserRouter>
  );
}

const asked = new URLSearchParams(window.location.search);
const dashboard = await (await fetch(asked.get('dashboard'))).json();
const source = datasourceAt(asked.get('prometheus'), asked.get('scraped') ?? '5s');
createRoot(document.getElementById('root')).render(
  <Page dashboard={dashboard} source={source} mode={asked.get('theme') ?? 'light'} />
);

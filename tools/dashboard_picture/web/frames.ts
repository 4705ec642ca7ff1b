/** Answers of Prometheus as the data frames that Grafana's components draw. */

import {
  DataFrame,
  FieldConfigOptionsRegistry,
  FieldType,
  GrafanaTheme2,
  applyFieldOverrides,
  identityOverrideProcessor,
  toDataFrame,
} from '@grafana/data';
import { Panel, Series } from './recording';

/** What the dashboard's overrides set: of all that Grafana lets them set, who is in the legend. */
const registry = new FieldConfigOptionsRegistry(() => [
  {
    id: 'custom.hideFrom',
    path: 'hideFrom',
    name: 'Hide in area',
    isCustom: true,
    process: identityOverrideProcessor,
    shouldApply: () => true,
    editor: () => null,
    override: () => null,
  },
]);

/** A frame for each series, coloured in their order unless the panel says otherwise. */
export function frames(panel: Panel, all: Series[], theme: GrafanaTheme2): DataFrame[] {
  const { defaults = {}, overrides = [] } = panel.fieldConfig ?? {};
  const data = all.map((series, index) =>
    toDataFrame({
      refId: String(index),
      fields: [
        { name: 'Time', type: FieldType.time, values: series.times.map((time) => time * 1000), config: {} },
        {
          name: series.name,
          type: FieldType.number,
          values: series.values,
          config: { color: { mode: 'palette-classic' }, ...defaults, displayNameFromDS: series.name },
        },
      ],
    })
  );
  return applyFieldOverrides({
    data,
    fieldConfig: { defaults: {}, overrides },
    fieldConfigRegistry: registry,
    replaceVariables: (text) => text,
    theme,
    timeZone: 'utc',
  });
}
